// Renders the contract that this server serves; nothing is fetched from elsewhere.
Redoc.init('/v1/openapi.json', {
  disableSearch: false,
  hideDownloadButton: false,
  theme: { typography: { fontFamily: 'system-ui, sans-serif', headings: { fontFamily: 'system-ui, sans-serif' } } },
}, document.getElementById('docs'));
