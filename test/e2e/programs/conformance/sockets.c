// socket(2): what can be made, and what was made.
#include "conformance.h"

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;
	return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

CASE(socket_kinds)
{
	static const struct {
		const char *what;
		int domain, type, proto;
	} kinds[] = {
		{"stream", AF_INET, SOCK_STREAM, 0},
		{"stream tcp", AF_INET, SOCK_STREAM, IPPROTO_TCP},
		{"stream udp", AF_INET, SOCK_STREAM, IPPROTO_UDP},
		{"stream icmp", AF_INET, SOCK_STREAM, IPPROTO_ICMP},
		{"stream raw", AF_INET, SOCK_STREAM, IPPROTO_RAW},
		{"stream sctp", AF_INET, SOCK_STREAM, IPPROTO_SCTP},
		{"stream mptcp", AF_INET, SOCK_STREAM, 262},
		{"stream 250", AF_INET, SOCK_STREAM, 250},
		{"stream 1000", AF_INET, SOCK_STREAM, 1000},
		{"stream -1", AF_INET, SOCK_STREAM, -1},
		{"dgram", AF_INET, SOCK_DGRAM, 0},
		{"dgram udp", AF_INET, SOCK_DGRAM, IPPROTO_UDP},
		{"dgram tcp", AF_INET, SOCK_DGRAM, IPPROTO_TCP},
		{"dgram icmp", AF_INET, SOCK_DGRAM, IPPROTO_ICMP},
		{"dgram icmpv6", AF_INET, SOCK_DGRAM, IPPROTO_ICMPV6},
		{"dgram -1", AF_INET, SOCK_DGRAM, -1},
		{"raw", AF_INET, SOCK_RAW, 0},
		{"raw icmp", AF_INET, SOCK_RAW, IPPROTO_ICMP},
		{"seqpacket", AF_INET, SOCK_SEQPACKET, 0},
		{"rdm", AF_INET, SOCK_RDM, 0},
		{"dccp", AF_INET, SOCK_DCCP, 0},
		{"type 0", AF_INET, 0, 0},
		{"type 7", AF_INET, 7, 0},
		{"type 11", AF_INET, 11, 0},
		{"type 15", AF_INET, 15, 0},
		{"flag 0x100", AF_INET, SOCK_STREAM | 0x100, 0},
		{"type -1", AF_INET, -1, 0},
		{"6 stream", AF_INET6, SOCK_STREAM, 0},
		{"6 stream tcp", AF_INET6, SOCK_STREAM, IPPROTO_TCP},
		{"6 stream udp", AF_INET6, SOCK_STREAM, IPPROTO_UDP},
		{"6 dgram", AF_INET6, SOCK_DGRAM, 0},
		{"6 dgram icmpv6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6},
		{"6 dgram icmp", AF_INET6, SOCK_DGRAM, IPPROTO_ICMP},
		{"6 type 0", AF_INET6, 0, 0},
		{"6 packet", AF_INET6, SOCK_PACKET, 0},
		{"family 0", AF_UNSPEC, SOCK_STREAM, 0},
		{"family 99", 99, SOCK_STREAM, 0},
		{"family -1", -1, SOCK_STREAM, 0},
		{"unix", AF_UNIX, SOCK_STREAM, 0},
		{"netlink", AF_NETLINK, SOCK_RAW, 0},
	};
	for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
		int fd = DO(kinds[i].what, socket(kinds[i].domain, kinds[i].type, kinds[i].proto));
		if (fd >= 0)
			close(fd);
	}
}

static void kind(const char *what, int domain, int type, int proto)
{
	int fd = socket(domain, type, proto);
	say(what, "domain %d type %d protocol %d accepts %d error %d", option(fd, SOL_SOCKET, SO_DOMAIN), option(fd, SOL_SOCKET, SO_TYPE),
	    option(fd, SOL_SOCKET, SO_PROTOCOL), option(fd, SOL_SOCKET, SO_ACCEPTCONN), option(fd, SOL_SOCKET, SO_ERROR));
	say(what, "flags %o cloexec %d", fcntl(fd, F_GETFL), fcntl(fd, F_GETFD));
	close(fd);
}

CASE(socket_is)
{
	kind("tcp", AF_INET, SOCK_STREAM, 0);
	kind("tcp6", AF_INET6, SOCK_STREAM, 0);
	kind("udp", AF_INET, SOCK_DGRAM, 0);
	kind("udp6", AF_INET6, SOCK_DGRAM, 0);
	kind("mptcp", AF_INET, SOCK_STREAM, 262);
	kind("cloexec", AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	kind("nonblock", AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	kind("both", AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

CASE(socket_lowest)
{
	int a = DO("first", socket(AF_INET, SOCK_STREAM, 0));
	int b = DO("second", socket(AF_INET, SOCK_STREAM, 0));
	DO("third", socket(AF_INET6, SOCK_STREAM, 0));
	close(a);
	DO("the first's again", socket(AF_INET, SOCK_STREAM, 0));
	close(b);
	close(0);
	DO("descriptor 0", socket(AF_INET, SOCK_STREAM, 0));
	DO("the second's again", socket(AF_INET6, SOCK_STREAM, 0));
}

CASE(socket_limit)
{
	struct rlimit r = {6, 6};
	setrlimit(RLIMIT_NOFILE, &r);
	int fd = -1, n = 0;
	while ((fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0)
		n++;
	say("limit of 6", "%d sockets, then %s", n, error_name(errno));
	close(4);
	DO("after a close", socket(AF_INET, SOCK_STREAM, 0));
	DO("again", socket(AF_INET6, SOCK_DGRAM, 0));
}

CASE(socket_no_other_way)
{
	char params[256] = {0};
	DO("io_uring_setup", syscall(425, 8, params));
#ifdef __x86_64__
	// socket() by the i386 ABI, number 102 of which is socketcall; its arguments must be below 4 GB.
	unsigned *args = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	args[0] = AF_INET, args[1] = SOCK_STREAM, args[2] = 0;
	long r;
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(102L), "b"(1L), "c"(args) : "memory", "r8", "r9", "r10", "r11");
	say("i386 socketcall", "%s", (int)r >= 0 ? "made" : error_name(-(int)r));
	__asm__ volatile("int $0x80" : "=a"(r) : "a"(359L), "b"(2L), "c"(1L), "d"(0L) : "memory", "r8", "r9", "r10", "r11");
	say("i386 socket", "%s", (int)r >= 0 ? "made" : error_name(-(int)r));
	// The x32 ABI: the kernel has it or it hasn't.
	long x = syscall(0x40000000 + 41, AF_INET, SOCK_STREAM, 0);
	say("x32 socket", "%s", x >= 0 ? "made" : error_name(errno));
#endif
}
