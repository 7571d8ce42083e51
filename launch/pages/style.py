"""The report's style sheet: one column of cards, light and dark, down to the width of a telephone."""

STYLE_SHEET = """
:root {
  --paper: #f6f6f3; --card: #ffffff; --ink: #1b1d21; --muted: #686d75; --grid: #e7e7e2; --line: #e2e2dc;
  --genuine: #0b8577; --impostor: #d2552a; --accent: #3452c7; --right: #0b8577; --wrong: #c63d3d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121316; --card: #1b1d21; --ink: #ebebe8; --muted: #9ba1a9; --grid: #2e3136; --line: #2a2d32;
    --genuine: #45c9b8; --impostor: #ff8c61; --accent: #92a8ff; --right: #45c9b8; --wrong: #ff7b7b;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--paper); color: var(--ink); line-height: 1.5; font-size: 16px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 1120px; margin: 0 auto; padding: 44px 24px 64px; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 8px; overflow-wrap: anywhere; }
h2 { font-size: 20px; letter-spacing: -0.01em; margin: 44px 0 12px; }
h3 { font-size: 15px; font-weight: 600; margin: 0; }
p { margin: 0 0 14px; color: var(--muted); max-width: 70ch; }
.note { font-size: 13px; margin: 2px 0 0; }
.card, .tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.card { margin: 0; padding: 16px 18px; min-width: 0; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin: 26px 0 0; }
.tile { padding: 16px 18px; }
.tile dt { color: var(--muted); font-size: 14px; }
.tile dd { margin: 2px 0 0; font-size: 34px; font-weight: 650; line-height: 1.15; letter-spacing: -0.02em; }
.tile dd, td, .last, b { font-variant-numeric: tabular-nums; }
.tile small {
  display: block; margin-top: 4px; font-size: 13px; font-weight: 400; letter-spacing: 0; color: var(--muted);
}
.wide, .narrow { display: grid; gap: 14px; }
.wide { grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
.narrow { grid-template-columns: repeat(auto-fill, minmax(min(300px, 100%), 1fr)); }
figcaption { display: flex; justify-content: space-between; align-items: baseline; gap: 10px; margin-bottom: 8px; }
.last { color: var(--muted); font-size: 15px; }
svg { display: block; width: 100%; max-width: 580px; height: auto; margin: 0 auto; }
svg * { stroke-linejoin: round; }
table { border-collapse: collapse; width: 100%; margin: 10px 0 8px; font-size: 15px; }
th, td { text-align: right; padding: 6px 0; border-bottom: 1px solid var(--line); font-weight: 400; }
thead th { color: var(--muted); font-size: 13px; }
th:first-child { text-align: left; }
.badge { color: var(--right); font-weight: 700; }
.wrong .badge { color: var(--wrong); }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(142px, 1fr)); gap: 12px; margin-top: 12px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 2px; margin: 0; align-content: start; min-width: 0; }
.pair img {
  display: block; width: 100%; aspect-ratio: 1; object-fit: cover; background: var(--grid);
  border: 1px solid var(--line);
}
.pair img:first-of-type { border-radius: 7px 0 0 7px; }
.pair img:last-of-type { border-radius: 0 7px 7px 0; }
.pair figcaption { grid-column: 1 / 3; display: block; margin: 2px 0 0; font-size: 12px; line-height: 1.35; }
.pair figcaption b { display: block; font-size: 13px; color: var(--right); }
.wrong .pair figcaption b { color: var(--wrong); }
.pair span { display: block; color: var(--muted); overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.none { margin: 0; }
details { margin-top: 44px; }
summary { cursor: pointer; font-weight: 600; font-size: 20px; letter-spacing: -0.01em; }
pre {
  margin: 12px 0 0; padding: 16px 18px; overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; font: 13px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace;
}
@media (max-width: 520px) {
  main { padding: 26px 14px 40px; }
  h1 { font-size: 24px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; }
  .tile { padding: 12px 13px; }
  .tile dd { font-size: 25px; }
  .card { padding: 13px 13px; }
}
@media print { .card, .tile { break-inside: avoid; } }
"""
