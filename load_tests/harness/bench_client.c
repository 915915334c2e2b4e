/* Keep a greeting server busy, in C: a check of generator.py, which does the same in Python.
 *
 * asker HOST PORT CONNECTIONS GREETINGS
 *
 * Connects CONNECTIONS times, then asks on all of them, GREETINGS times in all: whoever has its
 * answer asks again (closed loop). Every answer is compared. Prints the seconds that this took;
 * exit status 1, with a line on standard error, if an answer is wrong or does not come.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 64, PATIENCE = 10000 /* ms */ };

struct client {
    int fd;
    size_t length;  /* of what it says */
    char said[LONGEST];
    char expected[LONGEST];
    char heard[LONGEST];
    size_t got;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void ask(struct client *client)
{
    client->got = 0;
    if (send(client->fd, client->said, client->length, 0) != (ssize_t)client->length)
        fail("send");
}

/* Read what is there; return 1 when the answer is whole. */
static int hear(struct client *client)
{
    size_t whole = client->length + strlen("Hello, ");
    ssize_t count = recv(client->fd, client->heard + client->got, LONGEST - client->got, 0);
    if (count <= 0)
        fail("recv");
    client->got += count;
    if (client->got < whole)
        return 0;
    if (client->got > whole || memcmp(client->heard, client->expected, whole)) {
        fprintf(stderr, "wrong answer: %.*s\n", (int)client->got, client->heard);
        exit(1);
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: asker HOST PORT CONNECTIONS GREETINGS\n");
        return 2;
    }
    int connections = atoi(argv[3]), epoll = epoll_create1(0);
    long to_ask = atol(argv[4]), in_flight = 0;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    struct client *clients = calloc(connections, sizeof *clients);
    struct timespec began, ended;
    struct timeval patience = {.tv_sec = PATIENCE / 1000};
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    for (int number = 0; number < connections; number++) {
        struct client *client = &clients[number];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
        client->length = snprintf(client->said, LONGEST, "I am asker number %08d", number);
        snprintf(client->expected, LONGEST, "Hello, %s", client->said);
        client->fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        if (connect(client->fd, (struct sockaddr *)&server, sizeof server))
            fail("connect");
        ask(client);  /* once, to be sure that it is accepted */
        while (!hear(client))
            ;
        epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event);
    }
    puts("connected");  /* who started this may look at the server's clock now */
    fflush(stdout);
    getchar();
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int number = 0; number < connections && to_ask > 0; number++, to_ask--, in_flight++)
        ask(&clients[number]);
    while (in_flight) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, PATIENCE);
        if (count <= 0)
            fail("no answer");
        for (int place = 0; place < count; place++) {
            struct client *client = events[place].data.ptr;
            if (!hear(client))
                continue;
            if (to_ask > 0) {
                to_ask--;
                ask(client);
            } else {
                in_flight--;
            }
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    printf("%.9f\n", ended.tv_sec - began.tv_sec + (ended.tv_nsec - began.tv_nsec) / 1e9);
    fflush(stdout);
    getchar();
    return 0;
}
