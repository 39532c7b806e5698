// Light, dark, or as the system has it. A plain script in the head, so that no page shows in the wrong colours first.
(() => {
  const NAME = "theme";
  const root = document.documentElement;

  const apply = (theme) => {
    if (theme) root.dataset.theme = theme;
    else delete root.dataset.theme;
  };

  const stored = localStorage.getItem(NAME) ?? "";
  apply(stored);
  document.addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    choice.value = stored;
    choice.addEventListener("change", () => {
      localStorage.setItem(NAME, choice.value);
      apply(choice.value);
    });
  });
})();
