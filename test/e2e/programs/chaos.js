// The node part of the chaos test; chaos.c says how its programs talk.
//   node chaos.js serve PORT ID | node chaos.js ask STOP PAUSE WORKERS TARGET...
const net = require('net');
const fs = require('fs');
const [what, ...args] = process.argv.slice(2);
const patience = 100000;

function serve(port, id) {
  net.createServer(c => {
    c.on('error', () => {});
    c.once('data', line => c.end(id + ' ' + line));
  }).listen({ port: Number(port), backlog: 512 });
}

function request(host, port, want, n) {
  return new Promise((resolve, reject) => {
    const c = net.connect({ host, port: Number(port), family: 4 });
    let got = '';
    c.setTimeout(patience, () => c.destroy(new Error('timeout')));
    c.on('connect', () => c.write(n + '\n'));
    c.on('data', b => { got += b; });
    c.on('error', reject);
    c.on('close', () => got === want ? resolve() : reject(new Error('answer ' + JSON.stringify(got))));
  });
}

async function ask(stop, pause, workers, ...targets) {
  const counters = new Array(Number(workers)).fill(0);
  const telling = setInterval(() => console.log('at ' + counters.join(' ')), 500);
  await Promise.all(counters.map(async (_, w) => {
    for (let n = w; !fs.existsSync(stop); n++) {
      const [, host, port, id] = targets[n % targets.length].match(/(.*):(.*)=(.*)/);
      const began = Date.now();
      try {
        await request(host, port, id + ' ' + n + '\n', n);
        counters[w]++;
      } catch (e) {
        console.log('failed ' + host + ' after ' + (Date.now() - began) + ' ms: ' + e.message);
      }
      await new Promise(r => setTimeout(r, Number(pause)));
    }
  }));
  clearInterval(telling);
  console.log('done ' + counters.reduce((a, b) => a + b));
}

({ serve, ask })[what](...args);
