// bind(2) and listen(2).
#include "conformance.h"

static int bind_at(int fd, const char *ip, int port)
{
	struct address a = at(ip, port);
	return bind(fd, &a.sa, a.len);
}

static int with(int fd, int level, int option)
{
	int one = 1;
	setsockopt(fd, level, option, &one, sizeof one);
	return fd;
}

static int reusable(void) { return with(new_socket(SOCK_STREAM), SOL_SOCKET, SO_REUSEADDR); }
static int shared(void) { return with(new_socket(SOCK_STREAM), SOL_SOCKET, SO_REUSEPORT); }

FAMILIES(bind_ports)
{
	int fd = new_socket(SOCK_STREAM);
	own_name("fresh", fd);
	DO("port 0", bind_at(fd, v->here, 0));
	own_name("port 0", fd);
	DO("twice", bind_at(fd, v->here, 0));
	DO("twice, another port", bind_at(fd, v->here, asked(7001)));
	own_name("still", fd);
	int other = new_socket(SOCK_STREAM);
	DO("in use", bind_at(other, v->here, port_of(fd)));
	own_name("after in use", other);
	DO("then another", bind_at(other, v->here, asked(7001)));
	own_name("7001", other);
	close(other);
	DO("after close", bind_at(new_socket(SOCK_STREAM), v->here, asked(7001)));
	DO("any", bind_at(new_socket(SOCK_STREAM), v->any, asked(7002)));
	DO("specific after any", bind_at(new_socket(SOCK_STREAM), v->here, asked(7002)));
}

FAMILIES(bind_reuse)
{
	int a = reusable(), b = reusable(), c = new_socket(SOCK_STREAM);
	DO("first", bind_at(a, v->here, asked(7010)));
	DO("second, both SO_REUSEADDR", bind_at(b, v->here, asked(7010)));
	DO("third, without", bind_at(c, v->here, asked(7010)));
	DO("the first listens", listen(a, 1));
	DO("the second listens", listen(b, 1));
	int d = reusable();
	DO("with a listener", bind_at(d, v->here, asked(7010)));
	int e = reusable();
	DO("any with a listener", bind_at(e, v->any, asked(7010)));
	close(a);
	DO("the second listens now", listen(b, 1));
	int f = new_socket(SOCK_STREAM), g = reusable();
	DO("first without", bind_at(f, v->here, asked(7011)));
	DO("second with", bind_at(g, v->here, asked(7011)));
}

FAMILIES(bind_group)
{
	int group[3];
	for (int i = 0; i < 3; i++) {
		group[i] = shared();
		DO("member", bind_at(group[i], v->here, asked(7020)));
		DO("listens", listen(group[i], 64));
		own_name("member", group[i]);
	}
	int outsider = new_socket(SOCK_STREAM);
	DO("outsider", bind_at(outsider, v->here, asked(7020)));
	int addr = reusable();
	DO("SO_REUSEADDR alone", bind_at(addr, v->here, asked(7020)));
	int late = new_socket(SOCK_STREAM);
	int clients = 0, accepted = 0, reached = 0;
	int c[48];
	for (int i = 0; i < 48; i++) {
		c[i] = new_socket(SOCK_STREAM);
		clients += connect_port(c[i], asked(7020)) == 0;
	}
	for (int i = 0; i < 3; i++) {
		int here = 0;
		fcntl(group[i], F_SETFL, O_NONBLOCK);
		while (accept(group[i], 0, 0) >= 0)
			here++;
		accepted += here;
		reached += here > 0;
	}
	say("connects", "%d of 48, accepted %d by %d members", clients, accepted, reached);
	close(group[0]);
	close(group[1]);
	DO("one left", connect_port(late, asked(7020)));
	close(group[2]);
	DO("none left", connect_port(new_socket(SOCK_STREAM), asked(7020)));
}

CASE(bind_wildcards)
{
	int four = socket(AF_INET, SOCK_STREAM, 0), six = socket(AF_INET6, SOCK_STREAM, 0);
	DO("0.0.0.0", bind_at(four, "0.0.0.0", asked(7030)));
	DO("IPv6 any with 0.0.0.0", bind_at(six, "::", asked(7030)));
	DO("V6ONLY", setsockopt(six, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int)));
	DO("IPv6 any, V6ONLY, with 0.0.0.0", bind_at(six, "::", asked(7030)));
	own_name("IPv6 any, V6ONLY", six);
	int loop = socket(AF_INET, SOCK_STREAM, 0);
	DO("127.0.0.1 with 0.0.0.0", bind_at(loop, "127.0.0.1", asked(7030)));
	DO("127.0.0.2 with 0.0.0.0", bind_at(loop, "127.0.0.2", asked(7030)));
	int six1 = socket(AF_INET6, SOCK_STREAM, 0);
	DO("IPv6 loopback with V6ONLY", bind_at(six1, "::1", asked(7030)));
	int dual = socket(AF_INET6, SOCK_STREAM, 0);
	DO("IPv6 any", bind_at(dual, "::", asked(7031)));
	DO("127.0.0.1 with IPv6 any", bind_at(loop, "127.0.0.1", asked(7031)));
	DO("127.0.0.1", bind_at(loop, "127.0.0.1", asked(7032)));
	int two = socket(AF_INET, SOCK_STREAM, 0);
	DO("127.0.0.2 beside it", bind_at(two, "127.0.0.2", asked(7032)));
	own_name("127.0.0.2", two);
	int mine = socket(AF_INET, SOCK_STREAM, 0);
	DO("own address beside both", bind_at(mine, own, asked(7032)));
	own_name("own", mine);
	int any = socket(AF_INET, SOCK_STREAM, 0);
	DO("0.0.0.0 after them", bind_at(any, "0.0.0.0", asked(7032)));
	DO("mapped after them", bind_at(socket(AF_INET6, SOCK_STREAM, 0), "::ffff:127.0.0.1", asked(7032)));
	DO("IPv6 loopback beside them", bind_at(socket(AF_INET6, SOCK_STREAM, 0), "::1", asked(7032)));
}

CASE(bind_not_ours)
{
	static const char *const addresses[] = {"198.51.100.1", "1.1.1.1", "127.255.255.255", "127.1.2.3", "2001:db8::1",
						"::ffff:198.51.100.1", "ff02::1", "fe80::1", "255.255.255.255", "224.0.0.1"};
	for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		int domain = strchr(addresses[i], ':') ? AF_INET6 : AF_INET, tcp = socket(domain, SOCK_STREAM, 0);
		char what[64];
		snprintf(what, sizeof what, "%s", addresses[i]);
		for (char *c = what; *c; c++)
			if (*c == ':')
				*c = '.'; // a colon ends the step
		DO(what, bind_at(tcp, addresses[i], 0));
		own_name(what, tcp);
		strcat(what, " by UDP");
		DO(what, bind_at(socket(domain, SOCK_DGRAM, 0), addresses[i], 0));
	}
}

CASE(bind_privileged)
{
	if (setgid(65534) || setuid(65534))
		say("setuid", "%s", error_name(errno));
	DO("port 80", bind_at(socket(AF_INET, SOCK_STREAM, 0), "0.0.0.0", 80));
	DO("port 81 on loopback", bind_at(socket(AF_INET, SOCK_STREAM, 0), "127.0.0.1", 81));
	DO("port 82 by IPv6", bind_at(socket(AF_INET6, SOCK_STREAM, 0), "::", 82));
	DO("port 83 by UDP", bind_at(socket(AF_INET, SOCK_DGRAM, 0), "127.0.0.1", 83));
	DO("port 1024", bind_at(socket(AF_INET, SOCK_STREAM, 0), "0.0.0.0", 1024));
}

CASE(bind_lengths)
{
	struct address four = at("127.0.0.1", 0), six = at("::1", 0);
	for (int len = -1; len <= 130; len = len < 30 ? len + 1 : len + 33) {
		char what[32];
		snprintf(what, sizeof what, "4 length %d", len);
		DO(what, bind(socket(AF_INET, SOCK_STREAM, 0), &four.sa, len));
		snprintf(what, sizeof what, "6 length %d", len);
		DO(what, bind(socket(AF_INET6, SOCK_STREAM, 0), &six.sa, len));
	}
	DO("4 length 128", bind(socket(AF_INET, SOCK_STREAM, 0), &four.sa, 128));
	DO("4 length 129", bind(socket(AF_INET, SOCK_STREAM, 0), &four.sa, 129));
}

CASE(bind_arguments)
{
	int four = socket(AF_INET, SOCK_STREAM, 0), six = socket(AF_INET6, SOCK_STREAM, 0);
	struct address a4 = at("127.0.0.1", 0), a6 = at("::1", 0), any = at("0.0.0.0", 0), any6 = at("::", 0);
	DO("4 with AF_INET6", bind(four, &a6.sa, a6.len));
	DO("6 with AF_INET", bind(six, &a4.sa, a4.len));
	DO("6 with AF_INET of 28 bytes", bind(six, &a4.sa, 28));
	a4.sa.sa_family = AF_UNIX;
	DO("4 with AF_UNIX", bind(four, &a4.sa, a4.len));
	a4.sa.sa_family = AF_UNSPEC;
	DO("4 with AF_UNSPEC and an address", bind(four, &a4.sa, a4.len));
	any.sa.sa_family = AF_UNSPEC;
	DO("6 with AF_UNSPEC", bind(six, &any.sa, 28));
	any6.sa.sa_family = AF_UNSPEC;
	DO("6 with AF_UNSPEC and its any", bind(six, &any6.sa, any6.len));
	DO("4 with AF_UNSPEC", bind(four, &any.sa, any.len));
	own_name("AF_UNSPEC", four);
	int fresh = socket(AF_INET, SOCK_STREAM, 0);
	DO("NULL", bind(fresh, 0, 16));
	DO("NULL, length 0", bind(fresh, 0, 0));
	DO("a bad pointer", bind(fresh, (void *)8, 16));
	DO("a bad pointer of a bad length", bind(fresh, (void *)8, 200));
	struct address v6 = at("::1", 0);
	v6.in6.sin6_scope_id = 1;
	v6.in6.sin6_flowinfo = 77;
	DO("a scope", bind(six, &v6.sa, v6.len));
	own_name("a scope", six);
}

FAMILIES(bind_udp)
{
	int a = new_socket(SOCK_DGRAM), b = new_socket(SOCK_DGRAM);
	own_name("fresh", a);
	DO("7050", bind_at(a, v->here, asked(7050)));
	own_name("7050", a);
	DO("in use", bind_at(b, v->here, asked(7050)));
	DO("twice", bind_at(a, v->here, asked(7051)));
	DO("port 0", bind_at(b, v->here, 0));
	own_name("port 0", b);
	DO("tcp beside udp", bind_at(new_socket(SOCK_STREAM), v->here, asked(7050)));
	int c = with(new_socket(SOCK_DGRAM), SOL_SOCKET, SO_REUSEADDR), d = with(new_socket(SOCK_DGRAM), SOL_SOCKET, SO_REUSEADDR);
	DO("SO_REUSEADDR", bind_at(c, v->here, asked(7052)));
	DO("SO_REUSEADDR twice", bind_at(d, v->here, asked(7052)));
	DO("listen", listen(a, 1));
	DO("accept", accept(a, 0, 0));
	close(a);
	DO("after close", bind_at(new_socket(SOCK_DGRAM), v->here, asked(7050)));
}

FAMILIES(listen_states)
{
	int fd = new_socket(SOCK_STREAM);
	DO("accept on a fresh one", accept(fd, 0, 0));
	DO("unbound", listen(fd, 1));
	own_name("unbound", fd);
	DO("twice", listen(fd, 5));
	DO("backlog 0", listen(fd, 0));
	DO("backlog -1", listen(fd, -1));
	DO("backlog of a million", listen(fd, 1000000));
	DO("bind it", bind_at(fd, v->here, 0));
	DO("connect it", connect_port(fd, port_of(fd)));
	peer_name("peer", fd);
	int client, server;
	pair(&client, &server);
	DO("a client", listen(client, 1));
	DO("an accepted one", listen(server, 1));
	DO("accept on a client", accept(client, 0, 0));
	DO("accept on an accepted one", accept(server, 0, 0));
	int bound = new_socket(SOCK_STREAM);
	DO("bind", bind_at(bound, v->here, asked(7060)));
	DO("accept on a bound one", accept(bound, 0, 0));
	DO("listen on it", listen(bound, 1));
	DO("shutdown", shutdown(bound, SHUT_RDWR));
	own_name("after shutdown", bound);
	DO("accept after shutdown", accept(bound, 0, 0));
	DO("connect after shutdown", connect_port(new_socket(SOCK_STREAM), asked(7060)));
	DO("listen again", listen(bound, 1));
	DO("connect after that", connect_port(new_socket(SOCK_STREAM), asked(7060)));
	accept_shown("accept after that", bound, 0);
}

FAMILIES(listen_backlog)
{
	int listener = new_socket(SOCK_STREAM);
	DO("bind", bind_at(listener, v->here, asked(7070)));
	DO("listen", listen(listener, 1));
	int connected = 0;
	for (int i = 0; i < 2; i++)
		connected += connect_port(new_socket(SOCK_STREAM), asked(7070)) == 0;
	say("backlog 1", "%d connected", connected);
	int third = new_socket(SOCK_STREAM | SOCK_NONBLOCK);
	DO("one too many", connect_port(third, asked(7070)));
	say("it waits", "%s", events_text(wait_for(third, POLLOUT, 250)));
	DO("accept one", accept(listener, 0, 0));
	DO("a larger backlog", listen(listener, 10));
	say("it goes on", "%s", events_text(wait_for(third, POLLOUT, 5000)));
	peer_name("it goes on", third);
}
