/** Where the service asks for a key: a form for it; afterwards the browser is let in by a cookie that no script can read. */

import { asProblem, LOCKED, request } from "./api";
import { button, make } from "./dom";
import { notice } from "./notice";

interface Session {
  key_required: boolean;
  key_id: string | null;
  name: string;
  expires_at: string | null;
}

/** Run `open` once this browser is let in; the form takes the place of `main` until then, and again when the session ends. */
export async function door(main: HTMLElement, nav: HTMLElement, open: () => void): Promise<void> {
  const session = await request<Session>("/v1/session").catch(() => null);
  if (session?.key_required && !session.key_id) return showForm(main);
  if (session?.expires_at) nav.append(button("Sign out", "quiet", () => void leave()));
  window.addEventListener(LOCKED, () => showForm(main), { once: true });
  open();
}

function showForm(main: HTMLElement): void {
  const key = make("input", { type: "password", id: "key", autocomplete: "current-password", required: true, spellcheck: false });
  const said = make("div");
  const form = make(
    "form",
    { className: "door" },
    make("h2", { textContent: "This service asks for a key" }),
    make("label", { htmlFor: "key", textContent: "API key" }),
    key,
    make("button", { type: "submit", className: "primary", textContent: "Open" }),
    make("p", { className: "hint" }, "Whoever runs it makes one with ", make("code", { textContent: "splatworks keys create --name NAME" }), "."),
    said,
  );
  form.onsubmit = (event) => {
    event.preventDefault();
    request("/v1/session", { method: "POST", headers: { Authorization: `Bearer ${key.value.trim()}` } }).then(
      () => location.reload(),
      (thrown: unknown) => said.replaceChildren(notice(asProblem(thrown))),
    );
  };
  main.replaceChildren(form);
  key.focus();
}

async function leave(): Promise<void> {
  await request("/v1/session", { method: "DELETE" }).catch(() => null);
  location.reload();
}
