/* A service that tells which root it was started from.
 *
 * Answers every connection to TCP port 7777, or the one given, with one line: the first line of
 * /etc/issu-root and PRETTY_NAME of /etc/os-release, both read once at start.
 * Reports READY=1 to the service manager when it listens. */
#include <arpa/inet.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static void first_line(const char *path, const char *key, char *out, size_t size) {
	FILE *f = fopen(path, "re");
	char line[512];

	snprintf(out, size, "unknown");
	while (f && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		if (strncmp(line, key, strlen(key)))
			continue;
		const char *value = line + strlen(key);
		size_t n = strlen(value);
		if (*value == '"' && n > 1) {
			value++;
			n -= 2;
		}
		snprintf(out, size, "%.*s", (int)n, value);
		break;
	}
	if (f)
		fclose(f);
}

static void ready(void) {
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un to = { .sun_family = AF_UNIX };

	if (!path || strlen(path) >= sizeof to.sun_path)
		return;
	strcpy(to.sun_path, path);
	if (*path == '@')
		to.sun_path[0] = 0;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	sendto(fd, "READY=1", 7, MSG_NOSIGNAL, (struct sockaddr *)&to,
	       offsetof(struct sockaddr_un, sun_path) + strlen(path));
	close(fd);
}

int main(int argc, char **argv) {
	char name[128], os[128], answer[300];
	struct sockaddr_in6 here = { .sin6_family = AF_INET6, .sin6_port = htons(argc > 1 ? atoi(argv[1]) : 7777) };
	int one = 1, fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

	signal(SIGPIPE, SIG_IGN);
	first_line("/etc/issu-root", "", name, sizeof name);
	first_line("/etc/os-release", "PRETTY_NAME=", os, sizeof os);
	int n = snprintf(answer, sizeof answer, "%s %s\n", name, os);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(fd, (struct sockaddr *)&here, sizeof here) || listen(fd, 64)) {
		perror("listen");
		return 1;
	}
	ready();
	for (;;) {
		int peer = accept(fd, NULL, NULL);
		if (peer < 0)
			continue;
		send(peer, answer, n, MSG_NOSIGNAL);
		shutdown(peer, SHUT_WR);
		close(peer);
	}
}
