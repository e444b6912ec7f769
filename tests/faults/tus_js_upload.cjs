// Uploads one file with tus-js-client, as a web page or a Node program would: the client itself sees to what breaks on the way.
// node tus_js_upload.cjs PACKAGE_FILE ENDPOINT FILE CAPTURE CHUNK_BYTES; the last line is what happened, as JSON.
const fs = require("node:fs");
const path = require("node:path");
const { createRequire } = require("node:module");

const [packageFile, endpoint, file, capture, chunkBytes] = process.argv.slice(2);
const tus = createRequire(packageFile)("tus-js-client");
const answers = [];

const upload = new tus.Upload(fs.createReadStream(file), {
  endpoint,
  chunkSize: Number(chunkBytes),
  retryDelays: [0, 100, 200, 400, 800, 1600, 3200],
  metadata: { filename: path.basename(file), filetype: "image/jpeg", capture_id: capture },
  onAfterResponse: (request, response) => answers.push([request.getMethod(), response.getStatus()]),
  onSuccess: () => console.log(JSON.stringify({ answers, url: upload.url })),
  onError: (error) => {
    console.error(String(error));
    process.exitCode = 1;
  },
});
upload.start();
