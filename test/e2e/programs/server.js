// An HTTP server on node's own module: `node server.js PORT ID`. It listens on the dual-stack wildcard address.
const [port, id] = process.argv.slice(2);
require('http').createServer((request, response) => response.end(id + '\n')).listen(Number(port));
