// Descriptors: dup, fork, exec, passing them on; and what is no socket, or no descriptor.
#include "conformance.h"

CASE(errno_of_descriptors)
{
	int pipes[2];
	if (pipe(pipes))
		return;
	struct {
		const char *what;
		int fd;
	} kinds[] = {
		{"closed", 99},
		{"-1", -1},
		{"a pipe", pipes[0]},
		{"a file", open("/proc/self/status", O_RDONLY)},
		{"O_PATH", open("/", O_PATH)},
		{"an epoll", epoll_create1(0)},
		{"unix", socket(AF_UNIX, SOCK_STREAM, 0)},
	};
	struct address a = at("127.0.0.1", 1), out = {.len = sizeof out.all};
	char what[64], b[4];
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		int fd = kinds[i].fd;
#define CALL(name, call) (snprintf(what, sizeof what, "%s, " name, kinds[i].what), DO(what, call))
		CALL("bind", bind(fd, &a.sa, a.len));
		CALL("bind to a bad pointer", bind(fd, (void *)8, 16));
		CALL("bind of a bad length", bind(fd, &a.sa, 999));
		CALL("listen", listen(fd, 1));
		CALL("connect", connect(fd, &a.sa, a.len));
		CALL("connect to a bad pointer", connect(fd, (void *)8, 16));
		CALL("accept", accept4(fd, 0, 0, SOCK_NONBLOCK));
		CALL("accept of a bad flag", accept4(fd, 0, 0, 1));
		CALL("getsockname", getsockname(fd, &out.sa, &out.len));
		out.len = sizeof out.all;
		CALL("getsockname into a bad pointer", getsockname(fd, (void *)8, (void *)8));
		CALL("getpeername", getpeername(fd, &out.sa, &out.len));
		CALL("sendto", sendto(fd, "x", 1, 0, &a.sa, a.len));
		CALL("recvfrom", recvfrom(fd, b, 1, MSG_DONTWAIT, &out.sa, &out.len));
	}
}

static void accepts_and_writes(void *fd)
{
	int s = accept_shown("in the child", *(int *)fd, 0);
	own_name("in the child", s);
	peer_name("in the child", s);
	if (write(s, "x", 1) != 1)
		say("in the child", "%s", error_name(errno));
}

FAMILIES(fork_listener)
{
	int listener = new_listener(), port = port_of(listener), pid = child(accepts_and_writes, &listener);
	close(listener);
	int c = new_socket(SOCK_STREAM);
	char b;
	DO("connect", connect_port(c, port));
	DO("read", read(c, &b, 1));
	reap("child", pid);
	DO("the child was the last", connect_port(new_socket(SOCK_STREAM), port));
}

static void binds_in_child(void *fd)
{
	struct address a = here(asked(7200));
	DO("bind in the child", bind(*(int *)fd, &a.sa, a.len));
	DO("listen in the child", listen(*(int *)fd, 5));
}

FAMILIES(fork_between)
{
	int fd = new_socket(SOCK_STREAM);
	reap("child", child(binds_in_child, &fd));
	own_name("in the parent", fd);
	DO("connect", connect_port(new_socket(SOCK_STREAM), asked(7200)));
	accept_shown("in the parent", fd, 0);
}

FAMILIES(dup_states)
{
	int fd = new_socket(SOCK_STREAM), two = DO("dup", dup(fd)), three = DO("dup2", dup2(fd, 40));
	struct address a = here(asked(7210));
	DO("bind by a copy", bind(two, &a.sa, a.len));
	own_name("first", fd);
	DO("listen by another", listen(three, 5));
	close(fd);
	close(three);
	int c = new_socket(SOCK_STREAM);
	DO("connect", connect_port(c, asked(7210)));
	accept_shown("by the last", two, 0);
	int cc = dup(c);
	close(c);
	peer_name("copy of a client", cc);
	own_name("copy of a client", cc);
	DO("fcntl F_DUPFD", fcntl(cc, F_DUPFD_CLOEXEC, 50));
	close(two);
	DO("closed", connect_port(new_socket(SOCK_STREAM), asked(7210)));
}

static void execs(void *fds)
{
	// The shell can tell which descriptors it has.
	char script[128];
	snprintf(script, sizeof script, "for f in %d %d; do [ -e /proc/self/fd/$f ] && echo '   has one' || echo '   has none'; done", ((int *)fds)[0],
		 ((int *)fds)[1]);
	execl("/bin/sh", "sh", "-c", script, (char *)0);
	_exit(127);
}

CASE(exec_flags)
{
	int fds[2] = {socket(AF_INET, SOCK_STREAM, 0), socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
	say("descriptors", "%d %d", fds[0], fds[1]);
	reap("exec", child(execs, fds));
}

static void takes_three(void *over)
{
	int listener = receive_fd(*(int *)over), client = receive_fd(*(int *)over), fresh = receive_fd(*(int *)over);
	own_name("listener", listener);
	own_name("client", client);
	peer_name("client", client);
	own_name("fresh", fresh);
	accept_shown("accept the client", listener, 0);
	DO("connect the fresh one", connect_port(fresh, port_of(listener)));
	peer_name("fresh", fresh);
	accept_shown("accept the fresh one", listener, 0);
}

FAMILIES(pass_to_a_child)
{
	int over[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, over))
		return;
	int pid = child(takes_three, &over[1]);
	int listener = new_listener(), client = connected_to(listener), fresh = new_socket(SOCK_STREAM);
	send_fd(over[0], listener);
	send_fd(over[0], client);
	send_fd(over[0], fresh);
	int port = port_of(listener);
	close(listener);
	close(client);
	close(fresh);
	reap("child", pid);
	DO("nobody listens any more", connect_port(new_socket(SOCK_STREAM), port));
}
