// getsockname(2) and getpeername(2).
#include "conformance.h"

FAMILIES(names_lengths)
{
	int client, server;
	pair(&client, &server);
	for (int room = -4; room <= 36; room += 4) {
		struct address a;
		memset(&a, 0xee, sizeof a);
		socklen_t len = room;
		char what[48];
		snprintf(what, sizeof what, "getsockname, room for %d", room);
		DO(what, getsockname(client, &a.sa, &len));
		say(what, "length %d, next byte %02x", (int)len, ((unsigned char *)&a)[room < 0 ? 0 : room]);
		len = room;
		snprintf(what, sizeof what, "getpeername, room for %d", room);
		DO(what, getpeername(server, &a.sa, &len));
		say(what, "length %d", (int)len);
	}
	struct address a;
	socklen_t len = 16;
	DO("getsockname without an address", getsockname(client, 0, &len));
	DO("getsockname without a length", getsockname(client, &a.sa, 0));
	DO("getsockname into a bad pointer", getsockname(client, (void *)8, &len));
	DO("getpeername without an address", getpeername(client, 0, &len));
	DO("getpeername without a length", getpeername(client, &a.sa, 0));
	DO("getpeername of a fresh one into a bad pointer", getpeername(new_socket(SOCK_STREAM), (void *)8, (void *)8));
	len = 0;
	DO("getsockname, no room and no address", getsockname(client, 0, &len));
	say("its length", "%d", (int)len);
}

FAMILIES(names_after_the_end)
{
	int client, server;
	char b;
	pair(&client, &server);
	DO("shutdown for writing", shutdown(client, SHUT_WR));
	own_name("client", client);
	peer_name("client", client);
	DO("read", read(server, &b, 1));
	peer_name("server", server);
	DO("shutdown of the other side", shutdown(server, SHUT_WR));
	pause_ms(20);
	own_name("client", client);
	peer_name("client", client);
	own_name("server", server);
	peer_name("server", server);

	pair(&client, &server);
	struct linger reset = {1, 0};
	setsockopt(server, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(server);
	pause_ms(20);
	own_name("after a reset", client);
	peer_name("after a reset", client);
	DO("write", send(client, "x", 1, MSG_NOSIGNAL));
	DO("read", read(client, &b, 1));
	own_name("after both", client);
	peer_name("after both", client);
	DO("connect anew", connect_port(client, 1));

	pair(&client, &server);
	close(server);
	pause_ms(20);
	own_name("after a close", client);
	peer_name("after a close", client);
	DO("read", read(client, &b, 1));
	DO("shutdown", shutdown(client, SHUT_RDWR));
	DO("shutdown again", shutdown(client, SHUT_RDWR));
	own_name("after shutdown", client);
	peer_name("after shutdown", client);
}

CASE(names_shutdown_fresh)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	DO("fresh", shutdown(fd, SHUT_RDWR));
	DO("bad how", shutdown(fd, 9));
	own_name("fresh", fd);
	struct address a = at("127.0.0.1", 0);
	bind(fd, &a.sa, a.len);
	DO("bound", shutdown(fd, SHUT_RDWR));
	own_name("bound", fd);
	DO("listen", listen(fd, 1));
	DO("shutdown for writing", shutdown(fd, SHUT_WR));
	DO("still listening?", accept4(fd, 0, 0, SOCK_NONBLOCK | 1));
	DO("shutdown for reading", shutdown(fd, SHUT_RD));
	DO("still listening?", accept(fd, 0, 0));
}

FAMILIES(names_udp)
{
	int fd = new_socket(SOCK_DGRAM), other = new_socket(SOCK_DGRAM);
	struct address a = here(asked(7150)), any = at(v->any, asked(7151));
	own_name("fresh", fd);
	peer_name("fresh", fd);
	DO("bind", bind(fd, &a.sa, a.len));
	own_name("bound", fd);
	DO("bind", bind(other, &any.sa, any.len));
	own_name("any", other);
	DO("connect", connect_port(other, asked(7150)));
	own_name("connected", other);
	peer_name("connected", other);
	DO("shutdown", shutdown(other, SHUT_RDWR));
	peer_name("after shutdown", other);
}
