/* TCP_CRR, as netperf has it: connect, send one byte, receive one byte, close. Both ends use the kernel's sockets.
 *
 *     crr serve PORT                      answers on every address
 *     crr ask ADDRESS PORT SECONDS MANY   keeps MANY connections going; prints those that were answered per second
 *
 * A web server and its client cost more than the director between them; these programs cost little more than TCP itself. The server closes
 * first, so that its side keeps TIME_WAIT and the client's ports are free at once.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BACKLOG 1024
#define BATCH 64

static int queue;

static void watch(int descriptor, unsigned int events)
{
    struct epoll_event wanted = {.events = events, .data.fd = descriptor};
    epoll_ctl(queue, EPOLL_CTL_ADD, descriptor, &wanted);
}

static int serve(struct sockaddr_in address)
{
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct epoll_event ready[BATCH];
    char byte;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, BACKLOG))
        return perror("listen"), 1;
    watch(listener, EPOLLIN);
    for (;;)
        for (int left = epoll_wait(queue, ready, BATCH, -1); left-- > 0;) {
            int peer = ready[left].data.fd;
            if (peer == listener) {
                while ((peer = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0)
                    watch(peer, EPOLLIN);
                continue;
            }
            if (read(peer, &byte, 1) == 1)
                (void)!write(peer, &byte, 1);
            close(peer);
        }
}

static void begin(const struct sockaddr_in *address)
{
    int peer = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    connect(peer, (const struct sockaddr *)address, sizeof *address);
    watch(peer, EPOLLOUT);
}

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec + at.tv_nsec / 1e9;
}

static void ask(struct sockaddr_in address, int seconds, int many)
{
    double begun = now(), until = begun + seconds;
    struct epoll_event ready[BATCH], wanted = {.events = EPOLLIN};
    long done = 0;
    char bytes[2] = "x";

    for (int number = 0; number < many; number++)
        begin(&address);
    while (now() < until)
        for (int left = epoll_wait(queue, ready, BATCH, 100); left-- > 0;) {
            int peer = ready[left].data.fd;
            if (!(ready[left].events & EPOLLIN) && write(peer, bytes, 1) == 1) { /* connected */
                wanted.data.fd = peer;
                epoll_ctl(queue, EPOLL_CTL_MOD, peer, &wanted);
                continue;
            }
            done += read(peer, bytes, sizeof bytes) == 1;
            close(peer);
            begin(&address);
        }
    printf("%.1f\n", done / (now() - begun));
}

int main(int count, char **arguments)
{
    struct sockaddr_in address = {.sin_family = AF_INET};

    signal(SIGPIPE, SIG_IGN);
    queue = epoll_create1(0);
    if (count == 3 && !strcmp(arguments[1], "serve")) {
        address.sin_port = htons(atoi(arguments[2]));
        return serve(address);
    }
    if (count != 6 || strcmp(arguments[1], "ask") || !inet_aton(arguments[2], &address.sin_addr))
        return fprintf(stderr, "crr serve PORT | crr ask ADDRESS PORT SECONDS MANY\n"), 2;
    address.sin_port = htons(atoi(arguments[3]));
    ask(address, atoi(arguments[4]), atoi(arguments[5]));
    return 0;
}
