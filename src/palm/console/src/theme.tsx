import { useEffect, useState } from "preact/hooks";

const THEMES = ["auto", "light", "dark"] as const;
type Name = (typeof THEMES)[number];
const KEPT_AS = "palm-theme";
/** Told to the window when colours have changed, for what is not drawn by CSS. */
export const RECOLOURED = "palm-recoloured";

const kept = (): Name => THEMES.find((name) => name === localStorage.getItem(KEPT_AS)) ?? "auto";

function apply(theme: Name): void {
  if (theme === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  window.dispatchEvent(new Event(RECOLOURED));
}

apply(kept());
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => apply(kept()));

const SIGNS = { auto: "◐", light: "☀", dark: "☾" };

/** Light, dark, or as the system has it. */
export function Theme() {
  const [theme, setTheme] = useState<Name>(kept);
  useEffect(() => {
    localStorage.setItem(KEPT_AS, theme);
    apply(theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "auto";
  return (
    <button type="button" class="quiet" onClick={() => setTheme(next)} aria-label={`Colours: ${theme}. Change to ${next}`} title={`Colours: ${theme}`}>
      <span aria-hidden="true">{SIGNS[theme]}</span>
    </button>
  );
}
