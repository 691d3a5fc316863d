// Passing sockets to a process of another machine, or of another application: conformance IP --give|--take PATH.
#include "conformance.h"

int send_fd(int over, int fd)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	struct iovec one = {"x", 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	return sendmsg(over, &m, 0);
}

int receive_fd(int over)
{
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} control = {0};
	char b;
	struct iovec one = {&b, 1};
	struct msghdr m = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	int fd = -1;
	if (recvmsg(over, &m, 0) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof fd);
	return fd;
}

static struct sockaddr_un named(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	return a;
}

// give makes a listener, a client of it and a fresh socket, sends them to whoever takes them, and waits until that ends.
int give(const char *path)
{
	int over = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = named(path);
	for (int i = 0; connect(over, (void *)&a, sizeof a) < 0; i++) {
		if (i == 500)
			return 1;
		pause_ms(20);
	}
	struct address any = at("0.0.0.0", 7300), mine = at(own, 7300);
	int listener = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0), fresh = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, &any.sa, any.len) || listen(listener, 5) || connect(client, &mine.sa, mine.len))
		return 1;
	send_fd(over, listener);
	send_fd(over, client);
	send_fd(over, fresh);
	close(listener);
	char b;
	return read(over, &b, 1) != 0;
}

// take prints what the sockets are here. giver is the address of the machine where they were made.
int take(const char *path, const char *giver)
{
	int server = socket(AF_UNIX, SOCK_STREAM, 0);
	struct sockaddr_un a = named(path);
	if (bind(server, (void *)&a, sizeof a) || listen(server, 1))
		return 1;
	int over = accept(server, 0, 0), listener = receive_fd(over), client = receive_fd(over), fresh = receive_fd(over);
	own_name("listener", listener);
	own_name("client", client);
	peer_name("client", client);
	own_name("fresh", fresh);
	own_name("accepted", accept_shown("accept the client", listener, 0));
	struct address there = at(giver, 7300);
	int r = -1;
	for (int i = 0; i < 500 && (r = connect(fresh, &there.sa, there.len)) < 0; i++)
		pause_ms(20); // until it is known here
	say("connect the fresh one", "%d", r);
	peer_name("fresh, connected", fresh);
	accept_shown("accept the fresh one", listener, 0);
	DO("listen again", listen(listener, 1));
	close(listener);
	return 0;
}
