// connect(2).
#include "conformance.h"

static int connect_at(int fd, const char *ip, int port)
{
	struct address a = at(ip, port);
	return connect(fd, &a.sa, a.len);
}

static int unspec(int fd)
{
	struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
	return connect(fd, (void *)&a, sizeof(struct sockaddr_in));
}

// closed_port is one where nobody listens.
static int closed_port(void)
{
	int fd = new_socket(SOCK_STREAM);
	struct address a = here(0);
	bind(fd, &a.sa, a.len);
	return port_of(fd);
}

static int so_error(int fd)
{
	int value = -1;
	socklen_t len = sizeof value;
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len);
	return value;
}

FAMILIES(connect_states)
{
	int listener = new_listener(), port = port_of(listener), fd = new_socket(SOCK_STREAM);
	peer_name("fresh", fd);
	DO("connect", connect_port(fd, port));
	own_name("connected", fd);
	peer_name("connected", fd);
	DO("twice", connect_port(fd, port));
	DO("to another", connect_port(fd, 1));
	DO("bind", ({ struct address a = here(0); bind(fd, &a.sa, a.len); }));
	accept_shown("accept", listener, 0);
	DO("the listener", connect_port(listener, port));
	int server = connected_to(listener);
	(void)server;
	int accepted = accept_shown("second", listener, 0);
	DO("an accepted one", connect_port(accepted, port));
	own_name("accepted", accepted);
	peer_name("accepted", accepted);
	DO("shutdown", shutdown(fd, SHUT_RDWR));
	own_name("after shutdown", fd);
	peer_name("after shutdown", fd);
	DO("after shutdown", connect_port(fd, port));
}

FAMILIES(connect_refused)
{
	int port = closed_port(), fd = new_socket(SOCK_STREAM);
	DO("refused", connect_port(fd, port));
	say("SO_ERROR", "%s", error_name(so_error(fd)));
	peer_name("refused", fd);
	DO("again", connect_port(fd, port));
	int listener = new_listener();
	DO("then to a listener", connect_port(fd, port_of(listener)));
	peer_name("then", fd);
	DO("port 1", connect_port(new_socket(SOCK_STREAM), 1));
	DO("port 0", connect_port(new_socket(SOCK_STREAM), 0));
	close(listener);
}

FAMILIES(connect_closed_listener)
{
	int listener = new_listener(), port = port_of(listener);
	int waiting = connected_to(listener);
	close(listener);
	DO("afterwards", connect_port(new_socket(SOCK_STREAM), port));
	say("who waited to be accepted", "%s", events_text(wait_for(waiting, POLLIN, 2000)));
	char b;
	DO("read", read(waiting, &b, 1));
	peer_name("read", waiting);
	own_name("read", waiting);
}

FAMILIES(connect_self)
{
	int fd = new_socket(SOCK_STREAM);
	struct address a = here(asked(7100));
	DO("bind", bind(fd, &a.sa, a.len));
	DO("to itself", connect(fd, &a.sa, a.len));
	own_name("itself", fd);
	peer_name("itself", fd);
	char b = 'x';
	DO("write", write(fd, &b, 1));
	say("readable", "%s", events_text(wait_for(fd, POLLIN, 1000)));
}

FAMILIES(connect_bound)
{
	int listener = new_listener(), fd = new_socket(SOCK_STREAM), dead = closed_port();
	struct address a = here(asked(7101)), any = at(v->any, asked(7102));
	DO("bind", bind(fd, &a.sa, a.len));
	DO("refused", connect_port(fd, dead));
	own_name("still bound", fd);
	DO("connect", connect_port(fd, port_of(listener)));
	own_name("from 7101", fd);
	accept_shown("from 7101", listener, 0);
	int two = new_socket(SOCK_STREAM);
	DO("bind to any", bind(two, &any.sa, any.len));
	own_name("any", two);
	DO("connect", connect_port(two, port_of(listener)));
	own_name("from 7102", two);
	accept_shown("from 7102", listener, 0);
	DO("unspec", unspec(two));
	own_name("disconnected", two);
	peer_name("disconnected", two);
}

FAMILIES(connect_unspec)
{
	int listener = new_listener(), other = new_listener(), fd = connected_to(listener);
	int first = accept_shown("accept", listener, 0);
	DO("unspec", unspec(fd));
	own_name("disconnected", fd);
	peer_name("disconnected", fd);
	char b;
	DO("the other side", read(first, &b, 1));
	peer_name("the other side", first);
	DO("again", connect_port(fd, port_of(other)));
	own_name("again", fd);
	peer_name("again", fd);
	accept_shown("again", other, 0);
	DO("unspec on a fresh one", unspec(new_socket(SOCK_STREAM)));
	DO("unspec on a listener", unspec(listener));
	DO("accept on what was a listener", accept4(listener, 0, 0, SOCK_NONBLOCK));
	DO("and listen again", listen(listener, 1));
	struct address a = {.sa.sa_family = AF_UNSPEC, .len = 2};
	int third = connected_to(other);
	DO("unspec of 2 bytes", connect(third, &a.sa, 2));
	peer_name("unspec of 2 bytes", third);
	DO("unspec of 1 byte", connect(third, &a.sa, 1));
}

FAMILIES(connect_nonblocking)
{
	int listener = new_listener(), port = port_of(listener), fd = new_socket(SOCK_STREAM | SOCK_NONBLOCK);
	int r = connect_port(fd, port);
	say("connect", "%s", r == 0 || errno == EINPROGRESS ? "begun" : error_name(errno));
	say("writable", "%s", events_text(wait_for(fd, POLLOUT, 2000)));
	say("SO_ERROR", "%d", so_error(fd));
	peer_name("connected", fd);
	r = connect_port(fd, port);
	say("again", "%s", r == 0 || errno == EISCONN ? "is connected" : error_name(errno));
	DO("third", connect_port(fd, port));
	int refused = new_socket(SOCK_STREAM | SOCK_NONBLOCK), dead = closed_port();
	r = connect_port(refused, dead);
	if (r < 0 && errno == EINPROGRESS) {
		say("refused", "%s", events_text(wait_for(refused, POLLOUT, 2000) & (POLLERR | POLLHUP)) ? "later" : "never");
		errno = so_error(refused);
	}
	say("refused", "%s", error_name(errno));
	say("SO_ERROR afterwards", "%s", error_name(so_error(refused)));
	r = connect_port(refused, port);
	say("then to a listener", "%s", r == 0 || errno == EINPROGRESS ? "begun" : error_name(errno));
	say("writable", "%s", events_text(wait_for(refused, POLLOUT, 2000)));
	peer_name("then", refused);
	say("flags", "%d", (fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
}

CASE(connect_blackhole)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	DO("connect", connect_at(fd, BLACKHOLE, 80));
	DO("again", connect_at(fd, BLACKHOLE, 80));
	DO("elsewhere", connect_at(fd, "127.0.0.1", 80));
	peer_name("under way", fd);
	say("writable", "%s", events_text(wait_for(fd, POLLOUT, 250)));
	say("SO_ERROR", "%d", so_error(fd));
	DO("listen", listen(fd, 1));
	DO("accept", accept(fd, 0, 0));
	char b = 'x';
	DO("write", write(fd, &b, 1));
	DO("read", read(fd, &b, 1));
	DO("unspec", unspec(fd));
	own_name("disconnected", fd);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	listen(listener, 1);
	fcntl(fd, F_SETFL, 0);
	DO("to a listener", connect_at(fd, "127.0.0.1", port_of(listener)));
	peer_name("to a listener", fd);
}

CASE(connect_timeout)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval t = {0, 400000}, back = {0};
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	TIMED("connect", 400, connect_at(fd, BLACKHOLE, 80));
	socklen_t len = sizeof back;
	getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &back, &len);
	say("SO_SNDTIMEO", "%ld.%03ld", (long)back.tv_sec, (long)back.tv_usec / 1000);
	TIMED("again", 400, connect_at(fd, BLACKHOLE, 80));
	say("SO_ERROR", "%d", so_error(fd));
	peer_name("under way", fd);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	DO("without waiting", connect_at(fd, BLACKHOLE, 80));
	close(fd);
}

static void closes(void *fd) { close(*(int *)fd); }
static void shuts(void *fd) { shutdown(*(int *)fd, SHUT_RDWR); }

CASE(connect_closed_meanwhile)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	in_ms(250, shuts, &fd);
	DO("shutdown by another thread", connect_at(fd, BLACKHOLE, 80));
	peer_name("afterwards", fd);
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	listen(listener, 1);
	DO("to a listener", connect_at(fd, "127.0.0.1", port_of(listener)));
	int two = socket(AF_INET, SOCK_STREAM, 0);
	struct timeval t = {0, 600000};
	setsockopt(two, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t);
	in_ms(250, closes, &two);
	TIMED("closed by another thread", 600, connect_at(two, BLACKHOLE, 80));
}

CASE(connect_loopback)
{
	static const char *const to[] = {"127.0.0.1", "127.0.0.2", "127.255.255.254", "0.0.0.0"};
	int any = socket(AF_INET, SOCK_STREAM, 0);
	struct address a = at("0.0.0.0", asked(7110));
	bind(any, &a.sa, a.len);
	listen(any, 16);
	for (int i = 0; i < 4; i++) {
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		DO(to[i], connect_at(fd, to[i], asked(7110)));
		peer_name(to[i], fd);
		own_name(to[i], fd);
		int s = accept_shown(to[i], any, 0);
		own_name("accepted", s);
	}
	int two = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM, 0);
	a = at("127.0.0.2", asked(7111));
	bind(two, &a.sa, a.len);
	listen(two, 16);
	DO("127.0.0.1 where 127.0.0.2 listens", connect_at(fd, "127.0.0.1", asked(7111)));
	DO("127.0.0.2", connect_at(fd, "127.0.0.2", asked(7111)));
	own_name("127.0.0.2", fd);
	peer_name("127.0.0.2", fd);
	accept_shown("127.0.0.2", two, 0);
	int from = socket(AF_INET, SOCK_STREAM, 0);
	a = at("127.0.0.9", 0);
	DO("bind to 127.0.0.9", bind(from, &a.sa, a.len));
	DO("from there", connect_at(from, "127.0.0.2", asked(7111)));
	own_name("from there", from);
	accept_shown("from there", two, 0);
}

CASE(connect_dual)
{
	int dual = socket(AF_INET6, SOCK_STREAM, 0), only = socket(AF_INET6, SOCK_STREAM, 0), four = socket(AF_INET, SOCK_STREAM, 0);
	struct address a = at("::", asked(7120));
	bind(dual, &a.sa, a.len);
	listen(dual, 16);
	setsockopt(only, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int));
	a = at("::", asked(7121));
	bind(only, &a.sa, a.len);
	listen(only, 16);
	a = at("0.0.0.0", asked(7122));
	bind(four, &a.sa, a.len);
	listen(four, 16);
	int c[9];
	for (int i = 0; i < 9; i++)
		c[i] = socket(i % 3 == 0 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
	static const char *const to[] = {"127.0.0.1", "::ffff:127.0.0.1", "::1"};
	static const char *const names[] = {"dual by IPv4", "dual by mapped", "dual by IPv6", "only by IPv4", "only by mapped",
					    "only by IPv6", "IPv4 by IPv4", "IPv4 by mapped", "IPv4 by IPv6"};
	int servers[] = {dual, only, four};
	for (int i = 0; i < 9; i++) {
		if (DO(names[i], connect_at(c[i], to[i % 3], asked(7120) + i / 3)) != 0)
			continue;
		own_name(names[i], c[i]);
		peer_name(names[i], c[i]);
		own_name("accepted", accept_shown(names[i], servers[i / 3], 0));
	}
	int any = socket(AF_INET6, SOCK_STREAM, 0);
	DO("IPv6 any itself", connect_at(any, "::", asked(7120)));
	peer_name("IPv6 any itself", any);
	int v6only = socket(AF_INET6, SOCK_STREAM, 0);
	setsockopt(v6only, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int));
	DO("mapped on V6ONLY", connect_at(v6only, "::ffff:127.0.0.1", asked(7120)));
	int mapped_any = socket(AF_INET6, SOCK_STREAM, 0);
	DO("mapped 0.0.0.0", connect_at(mapped_any, "::ffff:0.0.0.0", asked(7120)));
	int bound = socket(AF_INET6, SOCK_STREAM, 0);
	a = at("::1", 0);
	bind(bound, &a.sa, a.len);
	DO("mapped from IPv6 loopback", connect_at(bound, "::ffff:127.0.0.1", asked(7120)));
	int bound4 = socket(AF_INET6, SOCK_STREAM, 0);
	a = at("::ffff:127.0.0.1", 0);
	DO("bind mapped", bind(bound4, &a.sa, a.len));
	own_name("bind mapped", bound4);
	DO("IPv6 loopback from mapped", connect_at(bound4, "::1", asked(7120)));
}

CASE(connect_arguments)
{
	struct address four = at("127.0.0.1", 1), six = at("::1", 1);
	for (int len = -1; len <= 30; len++) {
		char what[32];
		snprintf(what, sizeof what, "4 length %d", len);
		DO(what, connect(socket(AF_INET, SOCK_STREAM, 0), &four.sa, len));
		snprintf(what, sizeof what, "6 length %d", len);
		DO(what, connect(socket(AF_INET6, SOCK_STREAM, 0), &six.sa, len));
	}
	DO("length 128", connect(socket(AF_INET, SOCK_STREAM, 0), &four.sa, 128));
	DO("length 129", connect(socket(AF_INET, SOCK_STREAM, 0), &four.sa, 129));
	int fd = socket(AF_INET, SOCK_STREAM, 0), fd6 = socket(AF_INET6, SOCK_STREAM, 0);
	DO("4 with AF_INET6", connect(fd, &six.sa, six.len));
	DO("6 with AF_INET", connect(fd6, &four.sa, four.len));
	DO("6 with AF_INET of 28 bytes", connect(fd6, &four.sa, 28));
	four.sa.sa_family = AF_UNIX;
	DO("4 with AF_UNIX", connect(fd, &four.sa, 16));
	four.sa.sa_family = 99;
	DO("4 with family 99", connect(fd, &four.sa, 16));
	DO("NULL", connect(fd, 0, 16));
	DO("NULL, length 0", connect(fd, 0, 0));
	DO("a bad pointer", connect(fd, (void *)8, 16));
	DO("broadcast", connect_at(fd, "255.255.255.255", 80));
	DO("multicast", connect_at(socket(AF_INET, SOCK_STREAM, 0), "224.0.0.1", 80));
	DO("6 multicast", connect_at(fd6, "ff02::1", 80));
	own_name("afterwards", fd);
}

FAMILIES(connect_fast_open)
{
	int listener = new_listener(), fd = new_socket(SOCK_STREAM);
	fcntl(listener, F_SETFL, O_NONBLOCK);
	struct address a = here(port_of(listener));
	DO("sendto with MSG_FASTOPEN", sendto(fd, "hello", 5, MSG_FASTOPEN, &a.sa, a.len));
	peer_name("MSG_FASTOPEN", fd);
	own_name("MSG_FASTOPEN", fd);
	int s = accept_shown("MSG_FASTOPEN", listener, 0);
	char b[8];
	DO("what was sent", s < 0 ? -1 : read(s, b, sizeof b));
	int two = new_socket(SOCK_STREAM);
	DO("TCP_FASTOPEN_CONNECT", setsockopt(two, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &(int){1}, sizeof(int)));
	DO("connect", connect_port(two, port_of(listener)));
	DO("write", write(two, "hello", 5));
	peer_name("TCP_FASTOPEN_CONNECT", two);
	s = accept_shown("TCP_FASTOPEN_CONNECT", listener, 0);
	DO("what was written", read(s, b, sizeof b));
	DO("sendto on a fresh one", sendto(new_socket(SOCK_STREAM), "x", 1, 0, &a.sa, a.len));
	DO("sendto on a connected one", sendto(two, "x", 1, 0, &a.sa, a.len));
	DO("MSG_FASTOPEN on a connected one", sendto(two, "x", 1, MSG_FASTOPEN, &a.sa, a.len));
	int dead = closed_port();
	a = here(dead);
	DO("MSG_FASTOPEN refused", sendto(new_socket(SOCK_STREAM), "x", 1, MSG_FASTOPEN, &a.sa, a.len));
	DO("MSG_FASTOPEN to NULL", sendto(new_socket(SOCK_STREAM), "x", 1, MSG_FASTOPEN, 0, 0));
}

FAMILIES(connect_udp)
{
	int server = new_socket(SOCK_DGRAM), fd = new_socket(SOCK_DGRAM);
	struct address a = here(asked(7130));
	DO("bind", bind(server, &a.sa, a.len));
	peer_name("fresh", fd);
	DO("connect", connect_port(fd, asked(7130)));
	peer_name("connected", fd);
	own_name("connected", fd);
	DO("send", send(fd, "one", 3, 0));
	char b[8];
	struct address from = {.len = sizeof from.all};
	DO("recvfrom", recvfrom(server, b, sizeof b, 0, &from.sa, &from.len));
	int dead = new_socket(SOCK_DGRAM);
	DO("to a closed port", connect_port(dead, asked(7131)));
	DO("send", send(dead, "x", 1, 0));
	say("error", "%s", events_text(wait_for(dead, POLLIN, 1000)));
	DO("recv", recv(dead, b, 1, MSG_DONTWAIT));
	DO("again elsewhere", connect_port(dead, asked(7130)));
	peer_name("again", dead);
	DO("unspec", unspec(dead));
	peer_name("unspec", dead);
	own_name("unspec", dead);
	DO("send without a peer", send(dead, "x", 1, 0));
	DO("port 0", connect_port(dead, 0));
}
