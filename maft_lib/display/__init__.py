"""How finished records are shown as HTML, without a kernel and without JavaScript. Knows no models."""
