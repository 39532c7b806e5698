// Light or dark: as the system has it, until the reader chooses the other. A plain script in the head, so that no page
// shows in the wrong colours first.
(() => {
  const NAME = "theme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const ofSystem = () => (system.matches ? "dark" : "light");
  const shown = () => localStorage.getItem(NAME) || ofSystem();
  const other = () => (shown() === "dark" ? "light" : "dark");

  const apply = () => {
    root.dataset.theme = shown();
    const choice = document.getElementById("theme");
    if (!choice) return;
    choice.title = `Use ${other()} colours`;
    choice.setAttribute("aria-label", choice.title);
  };

  apply();
  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme").addEventListener("click", () => {
      const chosen = other();
      if (chosen === ofSystem()) localStorage.removeItem(NAME);
      else localStorage.setItem(NAME, chosen);
      apply();
    });
  });
})();
