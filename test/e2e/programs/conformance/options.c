// Options through which addresses or the network namespace show.
#include "conformance.h"
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;
	return getsockopt(fd, level, name, &value, &len) < 0 ? -errno : value;
}

static void set(const char *what, int fd, int level, int name, int value)
{
	DO(what, setsockopt(fd, level, name, &value, sizeof value));
}

FAMILIES(options_of_a_connection)
{
	int client, server, listener = new_listener();
	pair(&client, &server);
	int fds[] = {listener, client, server};
	static const char *const names[] = {"listener", "client", "server"};
	for (int i = 0; i < 3; i++) {
		struct tcp_info info;
		memset(&info, 0, sizeof info);
		socklen_t len = sizeof info;
		getsockopt(fds[i], IPPROTO_TCP, TCP_INFO, &info, &len);
		say(names[i], "state %d domain %d accepts %d error %d", info.tcpi_state, option(fds[i], SOL_SOCKET, SO_DOMAIN),
		    option(fds[i], SOL_SOCKET, SO_ACCEPTCONN), option(fds[i], SOL_SOCKET, SO_ERROR));
		struct ucred cred = {0};
		len = sizeof cred;
		DO("SO_PEERCRED", getsockopt(fds[i], SOL_SOCKET, SO_PEERCRED, &cred, &len));
		say("SO_PEERCRED", "%d %d %d", cred.pid, (int)cred.uid, (int)cred.gid);
	}
}

FAMILIES(options_set)
{
	int fd = new_socket(SOCK_STREAM);
	set("SO_REUSEADDR", fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set("SO_REUSEPORT", fd, SOL_SOCKET, SO_REUSEPORT, 1);
	set("SO_KEEPALIVE", fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set("SO_BROADCAST", fd, SOL_SOCKET, SO_BROADCAST, 1);
	set("SO_PRIORITY", fd, SOL_SOCKET, SO_PRIORITY, 3);
	set("IP_TOS", fd, IPPROTO_IP, IP_TOS, 16);
	set("IP_TTL", fd, IPPROTO_IP, IP_TTL, 3);
	set("IP_FREEBIND", fd, IPPROTO_IP, IP_FREEBIND, 1);
	set("IP_BIND_ADDRESS_NO_PORT", fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	set("TCP_DEFER_ACCEPT", fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
	set("TCP_FASTOPEN", fd, IPPROTO_TCP, TCP_FASTOPEN, 5);
	set("TCP_USER_TIMEOUT", fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 500);
	set("TCP_SYNCNT", fd, IPPROTO_TCP, TCP_SYNCNT, 3);
	say("read", "%d %d %d %d", option(fd, SOL_SOCKET, SO_REUSEPORT), option(fd, IPPROTO_IP, IP_TOS), option(fd, IPPROTO_IP, IP_FREEBIND),
	    option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT));
	set("an unknown level", fd, 255, 1, 1);
	set("an unknown option", fd, SOL_SOCKET, 9999, 1);
	set("a bad descriptor", 99, SOL_SOCKET, SO_REUSEADDR, 1);
	set("no socket", 1, SOL_SOCKET, SO_REUSEADDR, 1);
}

CASE(options_of_the_host)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
	DO("SO_BINDTODEVICE lo", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3));
	char device[IFNAMSIZ] = "";
	socklen_t len = sizeof device;
	DO("read SO_BINDTODEVICE", getsockopt(udp, SOL_SOCKET, SO_BINDTODEVICE, device, &len));
	say("SO_BINDTODEVICE", "'%s' %d", device, (int)len);
	DO("SO_BINDTODEVICE none", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "", 0));
	DO("SO_BINDTODEVICE nosuch", setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "nosuch0", 8));
	set("SO_MARK", fd, SOL_SOCKET, SO_MARK, 1);
	set("SO_MARK 0", fd, SOL_SOCKET, SO_MARK, 0);
	set("IP_TRANSPARENT", fd, IPPROTO_IP, IP_TRANSPARENT, 1);
	set("TCP_REPAIR", fd, IPPROTO_TCP, TCP_REPAIR, 0);
	set("IP_PKTINFO", udp, IPPROTO_IP, IP_PKTINFO, 1);
	set("IP_RECVTTL", udp, IPPROTO_IP, IP_RECVTTL, 1);
	set("IP_RECVERR", udp, IPPROTO_IP, IP_RECVERR, 1);
	struct ip_mreq group = {{inet_addr("239.1.2.3")}, {inet_addr("127.0.0.1")}};
	DO("IP_ADD_MEMBERSHIP on 127.0.0.1", setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
	DO("twice", setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
	DO("IP_DROP_MEMBERSHIP", setsockopt(udp, IPPROTO_IP, IP_DROP_MEMBERSHIP, &group, sizeof group));
	group.imr_multiaddr.s_addr = inet_addr("10.0.0.1");
	DO("no group", setsockopt(udp, IPPROTO_IP, IP_ADD_MEMBERSHIP, &group, sizeof group));
	int original[32];
	len = sizeof original;
	DO("SO_ORIGINAL_DST", getsockopt(fd, IPPROTO_IP, 80, original, &len));
}

CASE(options_v6only)
{
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	struct address a = at("::", 0), mapped = at("::ffff:127.0.0.1", 0);
	say("at first", "%d", option(fd, IPPROTO_IPV6, IPV6_V6ONLY));
	set("on", fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	DO("bind mapped", bind(fd, &mapped.sa, mapped.len));
	set("off", fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	DO("bind", bind(fd, &a.sa, a.len));
	set("after bind", fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	DO("listen", listen(fd, 1));
	set("after listen", fd, IPPROTO_IPV6, IPV6_V6ONLY, 0);
	say("at last", "%d", option(fd, IPPROTO_IPV6, IPV6_V6ONLY));
	set("on IPv4", socket(AF_INET, SOCK_STREAM, 0), IPPROTO_IPV6, IPV6_V6ONLY, 1);
}

CASE(options_interfaces)
{
	struct ifaddrs *list = 0;
	DO("getifaddrs", getifaddrs(&list));
	for (struct ifaddrs *i = list; i; i = i->ifa_next)
		if (i->ifa_addr && (i->ifa_addr->sa_family == AF_INET || i->ifa_addr->sa_family == AF_INET6)) {
			struct address a;
			memset(&a, 0, sizeof a);
			a.len = i->ifa_addr->sa_family == AF_INET ? sizeof a.in : sizeof a.in6;
			memcpy(&a.all, i->ifa_addr, a.len);
			say("address", "%s %s up %d", i->ifa_name, text(&a), (i->ifa_flags & IFF_UP) != 0);
		}
	int netlink = DO("netlink", socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
	struct sockaddr_nl me = {.nl_family = AF_NETLINK};
	DO("bind", bind(netlink, (void *)&me, sizeof me));
	socklen_t len = sizeof me;
	DO("getsockname", getsockname(netlink, (void *)&me, &len));
	say("getsockname", "family %d length %d", me.nl_family, (int)len);
	DO("getpeername", getpeername(netlink, (void *)&me, &len));
	say("if_nametoindex", "%d %d", if_nametoindex("lo"), if_nametoindex("nosuch0"));
	struct ifreq request = {0};
	strcpy(request.ifr_name, "lo");
	DO("SIOCGIFADDR on AF_UNIX", ioctl(socket(AF_UNIX, SOCK_DGRAM, 0), 0x8915, &request));
	say("SIOCGIFADDR", "%s", inet_ntoa(((struct sockaddr_in *)&request.ifr_addr)->sin_addr));
	struct ifconf interfaces = {0};
	struct ifreq room[16];
	interfaces.ifc_len = sizeof room;
	interfaces.ifc_req = room;
	DO("SIOCGIFCONF on AF_INET", ioctl(socket(AF_INET, SOCK_DGRAM, 0), 0x8912, &interfaces));
	for (unsigned i = 0; i < interfaces.ifc_len / sizeof *room; i++)
		say("SIOCGIFCONF", "%s %s", room[i].ifr_name, inet_ntoa(((struct sockaddr_in *)&room[i].ifr_addr)->sin_addr));
}

FAMILIES(options_errors)
{
	int fd = new_socket(SOCK_STREAM | SOCK_NONBLOCK);
	struct address a = here(1);
	connect(fd, &a.sa, a.len);
	wait_for(fd, POLLOUT, 1000);
	option(fd, SOL_SOCKET, SO_ERROR);
	say("SO_ERROR is read once", "%d", option(fd, SOL_SOCKET, SO_ERROR));
	say("SO_ERROR of no socket", "%s", error_name(-option(1, SOL_SOCKET, SO_ERROR)));
	char b;
	DO("read", read(fd, &b, 1));
	DO("write", send(fd, &b, 1, MSG_NOSIGNAL));
}
