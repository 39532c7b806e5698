// A service worker that adds the key to what a player fetches. A media element sends no headers of its own, so without
// this a recording would have to be held in memory before it plays; with it, the browser asks for ranges as it needs
// them, however long the recording. It keeps nothing: the page is asked for the key each time.

const RECORDING = /\/transcribe\/[0-9a-f-]{36}\/audio$/;
const ANSWER_MS = 5_000;

self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));
self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.mode !== "no-cors" || !RECORDING.test(new URL(request.url).pathname)) return;
  event.respondWith(withKey(event));
});

async function withKey({ clientId, request }) {
  const client = await self.clients.get(clientId);
  const headers = { "X-API-Key": client ? await keyOf(client) : "" };
  const range = request.headers.get("Range");
  if (range) headers.Range = range;
  return fetch(request.url, { headers, cache: "no-store", signal: request.signal });
}

function keyOf(client) {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = (event) => resolve(event.data);
    setTimeout(resolve, ANSWER_MS, "");
    client.postMessage("key", [port2]);
  });
}
