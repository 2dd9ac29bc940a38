// The reference of `make bench-agent`: one model behind Node's own HTTP server,
// with onnxruntime-node, one thread a run like the agent. Prints its address.
//
//   node server.mjs GRAPH
import http from "node:http";
import ort from "onnxruntime-node";

const session = await ort.InferenceSession.create(process.argv[2], {
  intraOpNumThreads: 1,
  interOpNumThreads: 1,
  executionMode: "sequential",
});

const datatypes = { float32: "FP32", int64: "INT64" };

async function infer(text) {
  const request = JSON.parse(text);
  const feeds = {};
  for (const t of request.inputs) {
    feeds[t.name] = new ort.Tensor("float32", Float32Array.from(t.data), t.shape);
  }
  const results = await session.run(feeds);
  const outputs = session.outputNames.map((name) => ({
    name,
    datatype: datatypes[results[name].type],
    shape: results[name].dims,
    data: Array.from(results[name].data, Number),
  }));
  return JSON.stringify({ model_name: "digits", outputs });
}

const server = http.createServer((req, res) => {
  const chunks = [];
  req.on("data", (c) => chunks.push(c));
  req.on("end", async () => {
    try {
      const body = await infer(Buffer.concat(chunks).toString());
      res.writeHead(200, { "Content-Type": "application/json", "Content-Length": Buffer.byteLength(body) });
      res.end(body);
    } catch (err) {
      res.writeHead(400);
      res.end(String(err));
    }
  });
});
server.listen(0, "127.0.0.1", () => console.log(`127.0.0.1:${server.address().port}`));
