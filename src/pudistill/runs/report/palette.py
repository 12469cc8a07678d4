"""Colours of pages and figures by name; the style sheet puts ``--`` before each name."""

LIGHT = {
    "page": "#fbfaf7",
    "ink": "#1d1f23",
    "muted": "#686d76",
    "line": "#e5e2db",
    "quiet": "#e8e5de",
    "accent": "#c2410c",
    "on-accent": "#fff",
    "warn": "#fdf3d8",
    "warn-line": "#d9a514",
    "trusted": "#2f8f5b",
    "filter": "#2a66c8",
    "teacher": "#8250c4",
    "student": "#c2410c",
    "model": "#c2420c",
    "given": "#878d96",
    "series-0": "#2a66c8",
    "series-1": "#c2410c",
    "series-2": "#2f8f5b",
    "series-3": "#8250c4",
    "series-4": "#b8860b",
    "series-5": "#0f8a9d",
    "series-6": "#c23a7a",
    "series-7": "#6b5b4b",
    "series-8": "#5b6bd6",
    "series-9": "#6d8f1f",
}
"""Colours on a light page, and in figures that stand alone."""

DARK = {
    "page": "#15171a",
    "ink": "#e9e7e2",
    "muted": "#9aa0a9",
    "line": "#30343a",
    "quiet": "#262a2f",
    "accent": "#f28b50",
    "on-accent": "#1b0d04",
    "warn": "#2e2813",
    "warn-line": "#b58b1c",
    "trusted": "#5cc48d",
    "filter": "#6da3f5",
    "teacher": "#b592ea",
    "student": "#f28b50",
    "model": "#f28c50",
    "given": "#8f959e",
    "series-0": "#6da3f5",
    "series-1": "#f28b50",
    "series-2": "#5cc48d",
    "series-3": "#b592ea",
    "series-4": "#dcb342",
    "series-5": "#4cc3d6",
    "series-6": "#ef82b3",
    "series-7": "#b8a48f",
    "series-8": "#98a4f7",
    "series-9": "#aed05a",
}
"""Colours on a dark page."""

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', sans-serif"
"""The font of pages and of figures that stand alone."""
