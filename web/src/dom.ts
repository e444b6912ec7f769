/** Building elements without a framework. */

type Child = Node | string | null;

/** Make an element with properties (not attributes) and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter((child): child is Node | string => child !== null));
  return element;
}

/** The element with this id; a missing one is a mistake in the page. */
export function byId(id: string): HTMLElement {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element;
}

/** A button that calls `onPress`. */
export function button(label: string, className: string, onPress: () => void): HTMLButtonElement {
  return make("button", { type: "button", className, textContent: label, onclick: onPress });
}

/** A progress bar with its name for screen readers; `fraction` is 0..1. */
export function progressBar(name: string, fraction: number): HTMLProgressElement {
  const bar = make("progress", { max: 1, value: fraction });
  bar.setAttribute("aria-label", name);
  return bar;
}
