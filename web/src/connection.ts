/** Whether the service answers: one line at the top of the page says when it does not, and goes when it does again. */

import { make } from "./dom";

const line = make("p", { className: "connection", hidden: true, textContent: "The service does not answer. This page goes on by itself when it is back." });
line.setAttribute("role", "status");

/** Note that an answer came, or that none did. */
export function answered(did: boolean): void {
  if (line.hidden === did) return;
  if (!line.isConnected) document.body.prepend(line);
  line.hidden = did;
}
