/** Where the service asks for a key: a form for it; afterwards the browser is let in by a cookie that no script can read. */

import { asProblem, LOCKED, Problem, request } from "./api";
import { button, make } from "./dom";
import { notice } from "./notice";

interface Session {
  key_required: boolean;
  key_id: string | null;
  name: string;
  expires_at: string | null;
}

const ENDED = "Your session has ended. Enter the key again: what you chose on this page is still there.";

/** Run `open` once this browser is let in; the form takes the place of `main` until then, and stands over it again when the session ends. */
export async function door(main: HTMLElement, nav: HTMLElement, open: () => void): Promise<void> {
  const session = await request<Session>("/v1/session").catch(() => null);
  if (session?.key_required && !session.key_id) {
    const form = keyForm("", () => location.reload());
    main.replaceChildren(form);
    return form.querySelector("input")?.focus();
  }
  if (session?.expires_at) nav.append(button("Sign out", "quiet", () => void leave()));
  window.addEventListener(LOCKED, () => standBefore(main, nav));
  open();
}

/** Hide the page behind the form until the key is given, then show it as it was. */
function standBefore(main: HTMLElement, nav: HTMLElement): void {
  if (main.hidden) return;
  const before = make("main", {}, keyForm(ENDED, () => {
    before.remove();
    main.hidden = nav.hidden = false;
    window.dispatchEvent(new Event(UNLOCKED));
  }));
  main.hidden = nav.hidden = true;
  main.before(before);
  before.querySelector("input")?.focus();
}

/** Told to the window when a session that had ended is open again. */
export const UNLOCKED = "splatworks-unlocked";

/** A form for the key; `why` says what it is asked for, where that needs saying. */
export function keyForm(why: string, onOpen: () => void): HTMLFormElement {
  const key = make("input", { type: "password", id: "key", autocomplete: "current-password", required: true, spellcheck: false });
  const submit = make("button", { type: "submit", className: "primary", textContent: "Open" });
  const said = make("div", { id: "key-said" });
  key.setAttribute("aria-describedby", "key-said");
  const refuse = (thrown: unknown): void => {
    const problem = asProblem(thrown);
    said.replaceChildren(notice(problem.code === "auth.unknown_key" ? new Problem("Wrong key", "No key like this one holds here.", "Check that all of it was copied.") : problem));
    key.ariaInvalid = "true";
    submit.disabled = false;
    key.select();
  };
  const form = make(
    "form",
    { className: "door" },
    make("h2", { textContent: "This service asks for a key" }),
    why ? make("p", { textContent: why }) : null,
    make("label", { htmlFor: "key", textContent: "API key" }),
    key,
    said,
    submit,
    make("p", { className: "hint" }, "Whoever runs the service makes one with ", make("code", { textContent: "splatworks keys create --name NAME" }), "."),
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    submit.disabled = true;
    request("/v1/session", { method: "POST", headers: { Authorization: `Bearer ${key.value.trim()}` } }).then(onOpen, refuse);
  };
  return form;
}

async function leave(): Promise<void> {
  await request("/v1/session", { method: "DELETE" }).catch(() => null);
  location.reload();
}
