// Sets the chosen theme before the first paint; hence no module. Without a choice, the system's is used.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("theme");
  } catch {
    // This browser keeps nothing for pages.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
