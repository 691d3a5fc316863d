/* Prints the IPv4 addresses of its argument (with -6 before it, the IPv6 ones) as the C library's getaddrinfo finds them,
   one to a line. The tests build it with musl, whose resolver differs from glibc's: one unconnected socket, all nameservers
   at once. AI_ADDRCONFIG is what most programs ask with: names resolve only where the machine has an address of the family. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG}, *list, *a;
	char text[INET6_ADDRSTRLEN];
	int err;

	if (argc == 3 && !strcmp(argv[1], "-6")) {
		hints.ai_family = AF_INET6;
		argc--, argv++;
	}
	if (argc != 2) {
		fprintf(stderr, "usage: getaddrinfo [-6] NAME\n");
		return 2;
	}
	if ((err = getaddrinfo(argv[1], NULL, &hints, &list)) != 0) {
		fprintf(stderr, "getaddrinfo %s: %s\n", argv[1], gai_strerror(err));
		return 1;
	}
	for (a = list; a; a = a->ai_next) {
		const void *address = &((struct sockaddr_in *)a->ai_addr)->sin_addr;

		if (a->ai_family == AF_INET6)
			address = &((struct sockaddr_in6 *)a->ai_addr)->sin6_addr;
		puts(inet_ntop(a->ai_family, address, text, sizeof text));
	}
	freeaddrinfo(list);
	return 0;
}
