// A conformance program: it makes the socket calls in every state and with every odd argument, and prints what each one
// gives, so that two runs can be compared line by line. A line is
//
//	case: step = result ERRNO address timing
//
// and holds nothing that may differ from run to run: ports that were not asked for are P1, P2… in the order in which the case
// meets them. Each case is a process of its own (main.c); one that does not end is one line more: "case: hangs".
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// A variant of a case: the same with other addresses.
struct variant {
	const char *name;
	int domain;
	const char *here; // what to connect to
	const char *any;  // what servers bind
	int ports;        // see asked
};

extern const struct variant *v; // of the case that runs
extern const char *own;         // the address of this machine, or of this application

void add_case(const char *name, void (*run)(void), int variants);

// CASE is a case by itself; FAMILIES is one for each variant, with v set.
#define CASE_(name, variants) \
	static void case_##name(void); \
	__attribute__((constructor)) static void add_##name(void) { add_case(#name, case_##name, variants); } \
	static void case_##name(void)
#define CASE(name) CASE_(name, 0)
#define FAMILIES(name) CASE_(name, 1)

// DO makes a call, prints what it gave and how long it took, and returns the result.
#define DO(what, call) TIMED(what, 0, call)
// TIMED does the same for a call that is expected to give up after some milliseconds.
#define TIMED(what, ms, call) \
	({ \
		long long began_ = milliseconds(); \
		errno = 0; \
		long result_ = (long)(call); \
		int errno_ = errno; \
		show(what, result_, result_ < 0 ? errno_ : 0, 0, milliseconds() - began_, ms); \
		errno = errno_; \
		result_; \
	})

long long milliseconds(void);
void show(const char *what, long result, int error, const char *address, long long took, int timeout);
void say(const char *what, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *error_name(int error);

struct address {
	union {
		struct sockaddr sa;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
		struct sockaddr_storage all;
	};
	socklen_t len;
};

struct address at(const char *ip, int port); // of the family that ip is written in
struct address here(int port);               // v->here
int asked(int port); // a port from 7000 to 7999 as the variant has it: connections of another one may still linger
int port_of(int fd);
const char *text(const struct address *a);

// Calls with an address as result.
int own_name(const char *what, int fd);
int peer_name(const char *what, int fd);
int accept_shown(const char *what, int fd, int flags);

// What cases begin with; they end the case if they fail.
int new_socket(int type);           // of v->domain
int new_listener(void);             // on v->any, port chosen by the kernel
int connected_to(int listener);     // a client, connected
void pair(int *client, int *server); // both ends of a connection
int connect_port(int fd, int port);  // to v->here

void in_ms(int ms, void (*f)(void *), void *arg); // in another thread
void pause_ms(int ms);
int child(void (*f)(void *), void *arg); // in another process, which exits with what f leaves in exit_status
void reap(const char *what, int pid);
int wait_for(int fd, int events, int ms); // revents, 0 after ms
const char *events_text(int revents);

int send_fd(int over, int fd); // over AF_UNIX
int receive_fd(int over);
int give(const char *path);
int take(const char *path, const char *giver);

#define BLACKHOLE "203.0.113.9" // where nothing answers
