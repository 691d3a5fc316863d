// conformance IP --give PATH | --take PATH GIVER: see passing.c. conformance IP [CASE…]: runs the cases whose names begin with one of the words, or all. IP is the machine's own address.
#include "conformance.h"
#include <stdarg.h>

#define MAX_CASES 1024
#define CASE_LIMIT_MS 10000

static const struct variant variants[] = {
	{"v4", AF_INET, "127.0.0.1", "127.0.0.1", 0},
	{"v6", AF_INET6, "::1", "::1", 1000},
	{"mapped", AF_INET6, "::ffff:127.0.0.1", "::", 2000},
	{"own", AF_INET, 0, "0.0.0.0", 3000},
};

static struct {
	char name[64];
	void (*run)(void);
	struct variant v;
} cases[MAX_CASES];
static int case_count;

const struct variant *v;
const char *own;
static const char *case_name;

void add_case(const char *name, void (*run)(void), int families)
{
	for (int i = 0; i < (families ? 4 : 1); i++) {
		if (case_count == MAX_CASES)
			abort();
		snprintf(cases[case_count].name, sizeof cases[0].name, families ? "%s/%s" : "%s", name, variants[i].name);
		cases[case_count].v = variants[i];
		cases[case_count++].run = run;
	}
}

static int wanted(const char *name, char **prefixes)
{
	if (!*prefixes)
		return 1;
	for (; *prefixes; prefixes++)
		if (!strncmp(name, *prefixes, strlen(*prefixes)))
			return 1;
	return 0;
}

// run_case runs a case in a process group of its own, which ends with it.
static void run_case(int i)
{
	int pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		case_name = cases[i].name;
		v = &cases[i].v;
		cases[i].run();
		fflush(stdout);
		_exit(0);
	}
	setpgid(pid, pid);
	int status = 0, ended = 0;
	for (int ms = 0; ms < CASE_LIMIT_MS && !(ended = waitpid(pid, &status, WNOHANG) == pid); ms += 2)
		pause_ms(2);
	kill(-pid, SIGKILL);
	if (!ended) {
		printf("%s: hangs\n", cases[i].name);
		waitpid(pid, &status, 0);
	} else if (WIFSIGNALED(status)) {
		printf("%s: dies of %s\n", cases[i].name, strsignal(WTERMSIG(status)));
	} else if (WEXITSTATUS(status) != 0) {
		printf("%s: gives up\n", cases[i].name);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	own = argv[1];
	setvbuf(stdout, 0, _IOLBF, 0);
	signal(SIGPIPE, SIG_IGN);
	case_name = "pass";
	v = variants;
	if (argc == 4 && !strcmp(argv[2], "--give"))
		return give(argv[3]);
	if (argc == 5 && !strcmp(argv[2], "--take"))
		return take(argv[3], argv[4]);
	for (int i = 0; i < case_count; i++) {
		if (!cases[i].v.here)
			cases[i].v.here = own;
		if (wanted(cases[i].name, argv + 2))
			run_case(i);
	}
	return 0;
}

long long milliseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

// timing is coarse enough for a busy machine: what waits in a case waits for 250 ms or more.
static const char *timing(long long took, int timeout)
{
	if (took < 200)
		return "at once";
	if (timeout && took >= timeout - 20 && took < timeout + 500)
		return "its timeout";
	return "waits";
}

const char *error_name(int error)
{
	const char *name = error ? strerrorname_np(error) : "";
	return name ? name : "E???";
}

void show(const char *what, long result, int error, const char *address, long long took, int timeout)
{
	printf("%s: %s = %ld%s%s%s%s, %s\n", case_name, what, result, error ? " " : "", error_name(error),
	       address ? " " : "", address ? address : "", timing(took, timeout));
}

void say(const char *what, const char *format, ...)
{
	char line[512];
	va_list args;
	va_start(args, format);
	vsnprintf(line, sizeof line, format, args);
	va_end(args);
	printf("%s: %s: %s\n", case_name, what, line);
}

static void need(const char *what, int ok)
{
	if (ok)
		return;
	printf("%s: cannot go on: %s: %s\n", case_name, what, error_name(errno));
	fflush(stdout);
	_exit(1);
}

struct address at(const char *ip, int port)
{
	struct address a;
	memset(&a, 0, sizeof a);
	if (strchr(ip, ':')) {
		a.in6.sin6_family = AF_INET6;
		a.in6.sin6_port = htons(port);
		inet_pton(AF_INET6, ip, &a.in6.sin6_addr);
		a.len = sizeof a.in6;
	} else {
		a.in.sin_family = AF_INET;
		a.in.sin_port = htons(port);
		inet_pton(AF_INET, ip, &a.in.sin_addr);
		a.len = sizeof a.in;
	}
	return a;
}

struct address here(int port) { return at(v->here, port); }

int asked(int port) { return port + v->ports; }

int port_of(int fd)
{
	struct address a = {.len = sizeof a.all};
	need("getsockname", getsockname(fd, &a.sa, &a.len) == 0);
	return ntohs(a.in.sin_port);
}

// port_text: what nobody asked for gets a name. Cases ask for ports below 20000.
static const char *port_text(int port)
{
	static int seen[64], count;
	static char out[4][16];
	static int turn;
	char *o = out[turn++ & 3];
	if (port >= 7000 && port < 11000)
		port = 7000 + port % 1000;
	if (port < 20000) {
		snprintf(o, 16, "%d", port);
		return o;
	}
	int i = 0;
	while (i < count && seen[i] != port)
		i++;
	if (i == count && count < 64)
		seen[count++] = port;
	snprintf(o, 16, "P%d", i + 1);
	return o;
}

const char *text(const struct address *a)
{
	static char out[4][128];
	static int turn;
	char ip[64] = "?", *o = out[turn++ & 3];
	if (a->len < sizeof(sa_family_t))
		snprintf(o, 128, "nothing");
	else if (a->sa.sa_family == AF_INET) {
		inet_ntop(AF_INET, &a->in.sin_addr, ip, sizeof ip);
		snprintf(o, 128, "%s:%s", ip, port_text(ntohs(a->in.sin_port)));
	} else if (a->sa.sa_family == AF_INET6) {
		inet_ntop(AF_INET6, &a->in6.sin6_addr, ip, sizeof ip);
		snprintf(o, 128, "[%s]:%s", ip, port_text(ntohs(a->in6.sin6_port)));
	} else
		snprintf(o, 128, "family %d", a->sa.sa_family);
	return o;
}

int own_name(const char *what, int fd)
{
	struct address a = {.len = sizeof a.all};
	long long began = milliseconds();
	int r = getsockname(fd, &a.sa, &a.len), e = errno;
	show(what, r, r < 0 ? e : 0, r < 0 ? 0 : text(&a), milliseconds() - began, 0);
	return r;
}

int peer_name(const char *what, int fd)
{
	struct address a = {.len = sizeof a.all};
	long long began = milliseconds();
	int r = getpeername(fd, &a.sa, &a.len), e = errno;
	show(what, r, r < 0 ? e : 0, r < 0 ? 0 : text(&a), milliseconds() - began, 0);
	return r;
}

int accept_shown(const char *what, int fd, int flags)
{
	struct address a = {.len = sizeof a.all};
	long long began = milliseconds();
	int r = accept4(fd, &a.sa, &a.len, flags), e = errno;
	show(what, r, r < 0 ? e : 0, r < 0 ? 0 : text(&a), milliseconds() - began, 0);
	errno = e;
	return r;
}

int new_socket(int type)
{
	int fd = socket(v->domain, type, 0);
	need("socket", fd >= 0);
	return fd;
}

int new_listener(void)
{
	int fd = new_socket(SOCK_STREAM);
	struct address a = at(v->any, 0);
	need("bind", bind(fd, &a.sa, a.len) == 0);
	need("listen", listen(fd, 16) == 0);
	return fd;
}

int connect_port(int fd, int port)
{
	struct address a = here(port);
	return connect(fd, &a.sa, a.len);
}

int connected_to(int listener)
{
	int fd = new_socket(SOCK_STREAM);
	need("connect", connect_port(fd, port_of(listener)) == 0);
	return fd;
}

void pair(int *client, int *server)
{
	int listener = new_listener();
	*client = connected_to(listener);
	*server = accept(listener, 0, 0);
	need("accept", *server >= 0);
	close(listener);
}

void pause_ms(int ms)
{
	struct timespec t = {ms / 1000, ms % 1000 * 1000000L};
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		;
}

struct delayed {
	int ms;
	void (*f)(void *);
	void *arg;
};

static void *run_delayed(void *p)
{
	struct delayed *d = p;
	pause_ms(d->ms);
	d->f(d->arg);
	return 0;
}

void in_ms(int ms, void (*f)(void *), void *arg)
{
	struct delayed *d = malloc(sizeof *d);
	*d = (struct delayed){ms, f, arg};
	pthread_t t;
	need("thread", pthread_create(&t, 0, run_delayed, d) == 0);
	pthread_detach(t);
}

int child(void (*f)(void *), void *arg)
{
	fflush(stdout);
	int pid = fork();
	need("fork", pid >= 0);
	if (pid == 0) {
		f(arg);
		fflush(stdout);
		_exit(0);
	}
	return pid;
}

void reap(const char *what, int pid)
{
	int status = 0;
	long long began = milliseconds();
	int r = waitpid(pid, &status, 0) == pid ? status : -1;
	show(what, r, 0, WIFSIGNALED(status) ? strsignal(WTERMSIG(status)) : 0, milliseconds() - began, 0);
}

int wait_for(int fd, int events, int ms)
{
	struct pollfd p = {.fd = fd, .events = events};
	return poll(&p, 1, ms) == 1 ? p.revents : 0;
}

const char *events_text(int revents)
{
	static char out[64];
	snprintf(out, sizeof out, "%s%s%s%s%s", revents & POLLIN ? " in" : "", revents & POLLOUT ? " out" : "",
		 revents & POLLERR ? " err" : "", revents & POLLHUP ? " hup" : "", revents & POLLRDHUP ? " rdhup" : "");
	return revents ? out + 1 : "none";
}
