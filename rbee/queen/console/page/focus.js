// The focus of the keyboard, which a browser drops where what has it is removed, moved or disabled.

let last = null;
let path = [];

// From now on the focus stays within root: on what had it, else in the same form, else on what is left around it and says something.
export function keepFocus(root) {
  root.addEventListener("focusin", (event) => {
    last = event.target;
    path = event.composedPath();
  });
  document.addEventListener("pointerdown", () => {
    last = null; // who clicks beside everything means nothing to have it
  });
  new MutationObserver(restore).observe(root, { childList: true, subtree: true, attributeFilter: ["disabled"] });
}

function restore() {
  const now = document.activeElement;
  if (last === null || (now !== document.body && !(now === last && last.disabled))) return;
  const next = last.isConnected && !last.disabled ? last : beside(path.slice(1).find((each) => each.isConnected && each.innerText.trim()));
  next.focus({ preventScroll: true });
}

function beside(left) {
  const form = left.closest("form");
  const field = form && form.querySelector("textarea:enabled, input:enabled");
  if (!field && left.tabIndex < 0) left.tabIndex = -1;
  return field || left;
}
