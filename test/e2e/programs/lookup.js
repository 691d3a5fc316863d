// Prints the IPv4 address of a name twice: by getaddrinfo (dns.lookup) and by node's own resolver, c-ares (dns.resolve4).
const dns = require('dns').promises;
(async (name) => {
  console.log((await dns.lookup(name, { family: 4 })).address);
  console.log((await dns.resolve4(name))[0]);
})(process.argv[2]).catch((error) => { console.error(error.message); process.exit(1); });
