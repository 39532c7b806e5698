// The key that the service is called with: for this tab, or, where the reader wants to stay signed in, for this browser.

const NAME = "api-key";

export const key = () => sessionStorage.getItem(NAME) ?? localStorage.getItem(NAME) ?? "";

export function keep(value, { always }) {
  forget();
  (always ? localStorage : sessionStorage).setItem(NAME, value);
}

export function forget() {
  sessionStorage.removeItem(NAME);
  localStorage.removeItem(NAME);
}
