/* Load a greeting server, in C: a check of generator.py, which does the same in Python.
 *
 * bench_client HOST PORT CONNECTIONS GREETINGS
 *
 * Connects CONNECTIONS times, then sends GREETINGS requests in all: each answer is followed by the
 * next request of that connection (closed loop). Every answer is compared. Prints the seconds that
 * this took; exit status 1, with a line on standard error, if an answer is wrong or does not come.
 */

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 64, TIMEOUT = 10000 /* ms */ };

struct client {
    int fd;
    size_t length;  /* of its request */
    char request[LONGEST];
    char expected[LONGEST];
    char answer[LONGEST];
    size_t received;
};

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void send_request(struct client *client)
{
    client->received = 0;
    if (send(client->fd, client->request, client->length, 0) != (ssize_t)client->length)
        fail("send");
}

/* Read what has arrived; return 1 when the answer is complete. */
static int receive(struct client *client)
{
    size_t whole = client->length + strlen("Hello, ");
    char *rest = client->answer + client->received;
    ssize_t count = recv(client->fd, rest, LONGEST - client->received, 0);
    if (count <= 0)
        fail("recv");
    client->received += count;
    if (client->received < whole)
        return 0;
    if (client->received > whole || memcmp(client->answer, client->expected, whole)) {
        fprintf(stderr, "wrong answer: %.*s\n", (int)client->received, client->answer);
        exit(1);
    }
    return 1;
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fprintf(stderr, "usage: bench_client HOST PORT CONNECTIONS GREETINGS\n");
        return 2;
    }
    int connections = atoi(argv[3]), epoll = epoll_create1(0);
    long to_send = atol(argv[4]), in_flight = 0;
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    struct client *clients = calloc(connections, sizeof *clients);
    struct timespec began, ended;
    struct timeval timeout = {.tv_sec = TIMEOUT / 1000};
    inet_pton(AF_INET, argv[1], &server.sin_addr);
    for (int number = 0; number < connections; number++) {
        struct client *client = &clients[number];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};
        client->length = snprintf(client->request, LONGEST, "I am client number %08d", number);
        snprintf(client->expected, LONGEST, "Hello, %s", client->request);
        client->fd = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
        if (connect(client->fd, (struct sockaddr *)&server, sizeof server))
            fail("connect");
        send_request(client);  /* once, to be sure that the server has accepted it */
        while (!receive(client))
            ;
        epoll_ctl(epoll, EPOLL_CTL_ADD, client->fd, &event);
    }
    puts("connected");  /* test_c_client.py reads the server's clock now */
    fflush(stdout);
    getchar();
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int number = 0; number < connections && to_send > 0; number++, to_send--, in_flight++)
        send_request(&clients[number]);
    while (in_flight) {
        struct epoll_event events[256];
        int count = epoll_wait(epoll, events, 256, TIMEOUT);
        if (count <= 0)
            fail("no answer");
        for (int place = 0; place < count; place++) {
            struct client *client = events[place].data.ptr;
            if (!receive(client))
                continue;
            if (to_send > 0) {
                to_send--;
                send_request(client);
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
