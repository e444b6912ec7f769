/** Links by which others see a finished scene: made, copied, revoked. */

import { asProblem, post, request } from "./api";
import { button, make } from "./dom";
import { notice } from "./notice";
import { moment } from "./words";

interface Share {
  id: string;
  expires_at: string;
  revoked_at: string | null;
  url?: string;
}

/** A fold with a job's links, filled when it is opened. */
export function sharing(jobId: string): HTMLElement {
  const rows = make("ul", { className: "links" });
  const said = make("div");
  const add = (share: Share): void => rows.prepend(linkRow(jobId, share, said));
  const create = button("Make a link", "quiet", () => {
    post<Share>(`/v1/jobs/${jobId}/shares`, {}).then(add, (thrown: unknown) => said.replaceChildren(notice(asProblem(thrown))));
  });
  const fold = make("details", { className: "sharing" }, make("summary", { textContent: "Share" }), create, rows, said);
  fold.ontoggle = () => {
    if (!fold.open || fold.dataset["filled"]) return;
    fold.dataset["filled"] = "yes";
    request<{ items: Share[] }>(`/v1/jobs/${jobId}/shares`).then(
      ({ items }) => items.filter((share) => !share.revoked_at && Date.parse(share.expires_at) > Date.now()).forEach(add),
      (thrown: unknown) => said.replaceChildren(notice(asProblem(thrown))),
    );
  };
  return fold;
}

function linkRow(jobId: string, share: Share, said: HTMLElement): HTMLElement {
  const revoke = button("Revoke", "quiet", () => {
    request(`/v1/jobs/${jobId}/shares/${share.id}`, { method: "DELETE" }).then(
      () => row.remove(),
      (thrown: unknown) => said.replaceChildren(notice(asProblem(thrown))),
    );
  });
  const until = make("small", { textContent: `until ${moment(share.expires_at)}` });
  const row = make("li", {}, ...(share.url ? linkOf(share.url) : [make("span", { textContent: "A link that was shown once" })]), until, revoke);
  return row;
}

function linkOf(url: string): HTMLElement[] {
  const field = make("input", { type: "text", readOnly: true, value: url, ariaLabel: "Link to share" });
  field.onfocus = () => field.select();
  const copy = button("Copy", "quiet", () => {
    navigator.clipboard.writeText(url).then(
      () => (copy.textContent = "Copied"),
      () => field.focus(), // no access to the clipboard: the link is selected instead
    );
  });
  return [field, copy];
}
