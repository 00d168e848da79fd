/*
 * A fake inference engine: answers like an OpenAI server, costs next to nothing, and says when it
 * sent what.
 *
 *     fakeengine --port N [--host H]        (other arguments are ignored)
 *
 * One epoll loop. The request steers the answer by a marker anywhere in its body, which survives
 * being parsed and written again by a proxy:
 *
 *     FK:n=<chunks>,i=<interval in us>,s=<bytes of a plain answer>,b=<chunks per send>;
 *
 * With "stream":true in the body the answer is a stream of n events, one HTTP chunk each, then one
 * with usage and timings, then [DONE]. Interval 0 means as fast as the client reads. Every event
 * holds "@@<ns>;", the CLOCK_MONOTONIC time at which it was written, so that a client on the same
 * machine can tell how long it was under way.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_ROOM 65536
#define UNSENT_LIMIT (1 << 20)
#define MODEL "fake"
#define ID "chatcmpl-Fk3xQ9d0sLwz7mA1"

/* One connection. It is in the heap while a paced stream is due, in `eager` while a stream that
 * goes as fast as possible can be written to. */
typedef struct connection {
    int fd;
    int heap_index;  /* -1: not in the heap */
    int eager_index; /* -1: not in `eager` */
    int streaming;
    int blocked; /* the socket takes no more: we wait for EPOLLOUT */
    char *in;
    size_t in_length, in_room;
    char *out;
    size_t out_length, out_sent, out_room;
    long chunks, sent, burst;
    uint64_t interval_ns, due;
} connection;

static int poll_fd;

/* Paced streams, the next due first. */
static connection **heap;
static int heap_length, heap_room;

/* Streams that are written to in every turn of the loop. */
static connection **eager;
static int eager_length, eager_room;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- the heap of paced streams */

static void heap_swap(int a, int b)
{
    connection *c = heap[a];
    heap[a] = heap[b];
    heap[b] = c;
    heap[a]->heap_index = a;
    heap[b]->heap_index = b;
}

static void heap_up(int i)
{
    while (i && heap[(i - 1) / 2]->due > heap[i]->due) {
        heap_swap(i, (i - 1) / 2);
        i = (i - 1) / 2;
    }
}

static void heap_down(int i)
{
    for (;;) {
        int child = 2 * i + 1;
        if (child >= heap_length)
            return;
        if (child + 1 < heap_length && heap[child + 1]->due < heap[child]->due)
            child++;
        if (heap[i]->due <= heap[child]->due)
            return;
        heap_swap(i, child);
        i = child;
    }
}

static void heap_add(connection *c)
{
    if (heap_length == heap_room) {
        heap_room = heap_room ? heap_room * 2 : 256;
        heap = realloc(heap, heap_room * sizeof *heap);
    }
    heap[heap_length] = c;
    c->heap_index = heap_length++;
    heap_up(c->heap_index);
}

static void heap_remove(connection *c)
{
    int i = c->heap_index;
    if (i < 0)
        return;
    c->heap_index = -1;
    heap_length--;
    if (i == heap_length)
        return;
    heap[i] = heap[heap_length];
    heap[i]->heap_index = i;
    heap_up(i);
    heap_down(heap[i]->heap_index);
}

/* ---- the list of eager streams */

static void eager_add(connection *c)
{
    if (c->eager_index >= 0)
        return;
    if (eager_length == eager_room) {
        eager_room = eager_room ? eager_room * 2 : 256;
        eager = realloc(eager, eager_room * sizeof *eager);
    }
    c->eager_index = eager_length;
    eager[eager_length++] = c;
}

static void eager_remove(connection *c)
{
    int i = c->eager_index;
    if (i < 0)
        return;
    c->eager_index = -1;
    eager_length--;
    if (i != eager_length) {
        eager[i] = eager[eager_length];
        eager[i]->eager_index = i;
    }
}

/* ---- connections and what is written to them */

static void watch(connection *c, uint32_t events)
{
    struct epoll_event event = {events | EPOLLIN | EPOLLRDHUP, {.ptr = c}};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &event);
}

static void drop(connection *c)
{
    heap_remove(c);
    eager_remove(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static void put(connection *c, const char *text, size_t length)
{
    if (c->out_length + length > c->out_room) {
        c->out_room = (c->out_length + length) * 2;
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_length, text, length);
    c->out_length += length;
}

static void put_chunk(connection *c, const char *text, size_t length)
{
    char size[20];
    put(c, size, sprintf(size, "%zx\r\n", length));
    put(c, text, length);
    put(c, "\r\n", 2);
}

enum flushed { FLUSHED, BLOCKED, DEAD };

static enum flushed flush_out(connection *c)
{
    while (c->out_sent < c->out_length) {
        ssize_t sent = send(c->fd, c->out + c->out_sent, c->out_length - c->out_sent, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && errno == EAGAIN) {
            if (!c->blocked) {
                watch(c, EPOLLOUT);
                c->blocked = 1;
            }
            return BLOCKED;
        }
        if (sent < 0)
            return DEAD;
        c->out_sent += sent;
    }
    c->out_sent = c->out_length = 0;
    if (c->blocked) {
        watch(c, 0);
        c->blocked = 0;
    }
    return FLUSHED;
}

static void put_event(connection *c)
{
    char text[512];
    int length = sprintf(text,
                         "data: {\"id\":\"" ID "\",\"object\":\"chat.completion.chunk\","
                         "\"created\":1760000000,\"model\":\"" MODEL "\",\"choices\":[{\"index\":0,"
                         "\"delta\":{\"content\":\"@@%llu; tok\"},\"finish_reason\":null}]}\n\n",
                         (unsigned long long)now_ns());
    put_chunk(c, text, length);
    c->sent++;
}

static void put_end(connection *c)
{
    char text[700];
    int length = sprintf(text,
                         "data: {\"id\":\"" ID "\",\"object\":\"chat.completion.chunk\","
                         "\"created\":1760000000,\"model\":\"" MODEL "\",\"choices\":[{\"index\":0,"
                         "\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,"
                         "\"completion_tokens\":%ld,\"total_tokens\":%ld},\"timings\":{"
                         "\"prompt_n\":12,\"prompt_ms\":10.5,\"predicted_n\":%ld,"
                         "\"predicted_ms\":100.5,\"predicted_per_second\":99.1}}\n\n",
                         c->chunks, c->chunks + 12, c->chunks);
    put_chunk(c, text, length);
    put(c, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
    c->streaming = 0;
}

static void put_json(connection *c, const char *text, size_t length)
{
    char head[256];
    put(c, head,
        sprintf(head,
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                "Server: fake\r\n\r\n",
                length));
    put(c, text, length);
}

/* ---- requests */

/* The number after `key=` in the marker's text, or what is assumed without it. */
static long field(const char *text, const char *end, char key, long assumed)
{
    for (const char *p = text; p < end && *p != ';'; p++)
        if ((p == text || p[-1] == ',') && *p == key && p[1] == '=')
            return atol(p + 2);
    return assumed;
}

static void begin_stream(connection *c, long chunks, long interval_us, long burst)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Transfer-Encoding: chunked\r\nServer: fake\r\n"
                               "Cache-Control: no-cache\r\n\r\n";
    put(c, head, sizeof head - 1);
    c->streaming = 1;
    c->chunks = chunks;
    c->sent = 0;
    c->burst = burst < 1 ? 1 : burst;
    c->interval_ns = interval_us * 1000ull;
    c->due = now_ns();
    if (c->interval_ns)
        heap_add(c);
    else
        eager_add(c);
}

static void answer_plainly(connection *c, long size)
{
    static const char tail[] = "\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":12,"
                               "\"completion_tokens\":24,\"total_tokens\":36}}";
    char *text = malloc(size + 512);
    int length = sprintf(text,
                         "{\"id\":\"" ID "\",\"object\":\"chat.completion\",\"created\":1760000000,"
                         "\"model\":\"" MODEL "\",\"choices\":[{\"index\":0,\"message\":{"
                         "\"role\":\"assistant\",\"content\":\"@@%llu;",
                         (unsigned long long)now_ns());
    long padding = size - length - (long)sizeof tail + 1;
    if (padding > 0) {
        memset(text + length, 'x', padding);
        length += padding;
    }
    memcpy(text + length, tail, sizeof tail - 1);
    put_json(c, text, length + sizeof tail - 1);
    free(text);
}

static void dispatch(connection *c, char *head, size_t head_length, char *body, size_t body_length)
{
    static const char ok[] = "{\"status\":\"ok\"}";
    static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"" MODEL
                                 "\",\"object\":\"model\",\"owned_by\":\"fake\"}]}";
    char *line_end = memchr(head, '\r', head_length);
    size_t line = line_end ? (size_t)(line_end - head) : 0;
    if (!memmem(head, line, "completions", 11)) {
        if (memmem(head, line, "/models", 7))
            put_json(c, models, sizeof models - 1);
        else
            put_json(c, ok, sizeof ok - 1);
        return;
    }
    char *end = body + body_length;
    char *marker = body_length ? memmem(body, body_length, "FK:", 3) : NULL;
    const char *text = marker ? marker + 3 : end;
    if (memmem(body, body_length, "\"stream\":true", 13)
        || memmem(body, body_length, "\"stream\": true", 14))
        begin_stream(c, field(text, end, 'n', 100), field(text, end, 'i', 0),
                     field(text, end, 'b', 1));
    else
        answer_plainly(c, field(text, end, 's', 300));
}

static char *find_header(char *head, size_t length, const char *name)
{
    size_t name_length = strlen(name);
    for (char *p = head; (p = memchr(p, '\n', length - (p - head)));) {
        p++;
        if ((size_t)(p - head) + name_length >= length)
            return NULL;
        if (!strncasecmp(p, name, name_length) && p[name_length] == ':') {
            p += name_length + 1;
            while (*p == ' ')
                p++;
            return p;
        }
    }
    return NULL;
}

/* Take one request from what was read; answers whether there was a whole one. Bodies of known
 * length only: none of the proxies we measure sends chunks. */
static int take_request(connection *c)
{
    char *end = memmem(c->in, c->in_length, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head_length = end + 4 - c->in;
    char *length = find_header(c->in, head_length, "content-length");
    size_t body_length = length ? strtoul(length, NULL, 10) : 0;
    size_t total = head_length + body_length;
    if (c->in_length < total)
        return 0;
    dispatch(c, c->in, head_length, c->in + head_length, body_length);
    memmove(c->in, c->in + total, c->in_length - total);
    c->in_length -= total;
    return 1;
}

static void take_requests(connection *c)
{
    while (!c->streaming && c->in_length && take_request(c))
        ;
}

/* Read all there is; answers whether the connection lives. */
static int read_in(connection *c)
{
    for (;;) {
        if (c->in_room - c->in_length < READ_ROOM + 1) {
            c->in_room = c->in_room ? c->in_room * 2 : 2 * READ_ROOM;
            c->in = realloc(c->in, c->in_room);
        }
        size_t room = c->in_room - c->in_length - 1;
        ssize_t got = recv(c->fd, c->in + c->in_length, room, 0);
        if (got == 0)
            return 0;
        if (got < 0)
            return errno == EAGAIN;
        c->in_length += got;
        c->in[c->in_length] = 0;
        if ((size_t)got < room)
            return 1;
    }
}

/* ---- the loop */

static void accept_all(int listener)
{
    int one = 1;
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->heap_index = c->eager_index = -1;
        struct epoll_event event = {EPOLLIN | EPOLLRDHUP, {.ptr = c}};
        epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &event);
    }
}

static void serve(connection *c, uint32_t events)
{
    int alive = !(events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP));
    if (alive && (events & EPOLLIN)) {
        alive = read_in(c);
        if (alive)
            take_requests(c);
    }
    if (alive && c->out_length && (!c->blocked || (events & EPOLLOUT))) {
        enum flushed state = flush_out(c);
        alive = state != DEAD;
        if (state == FLUSHED && c->streaming && !c->interval_ns)
            eager_add(c);
    }
    if (!alive)
        drop(c);
}

/* One burst for every stream that goes as fast as possible. */
static void serve_eager(void)
{
    for (int i = 0; i < eager_length;) {
        connection *c = eager[i];
        for (long b = 0; b < c->burst && c->sent < c->chunks; b++)
            put_event(c);
        int ended = c->sent >= c->chunks;
        if (ended)
            put_end(c);
        enum flushed state = flush_out(c);
        /* Removing moves another one to this place, so only a stream that stays moves us on. */
        if (state == DEAD) {
            drop(c);
        } else if (ended || state == BLOCKED) {
            eager_remove(c);
            if (ended && state == FLUSHED)
                take_requests(c);
        } else {
            i++;
        }
    }
}

/* The next event for every paced stream that is due. */
static void serve_due(void)
{
    uint64_t now = now_ns();
    while (heap_length && heap[0]->due <= now) {
        connection *c = heap[0];
        if (c->sent < c->chunks) {
            if (c->out_length < UNSENT_LIMIT)
                put_event(c);
            else
                c->sent++; /* nobody reads; do not grow for ever */
            c->due += c->interval_ns;
            heap_down(0);
        } else {
            put_end(c);
            heap_remove(c);
        }
        if (!c->blocked && flush_out(c) == DEAD)
            drop(c);
    }
}

static int wait_for_events(struct epoll_event *events, int room)
{
    if (eager_length)
        return epoll_wait(poll_fd, events, room, 0);
    if (!heap_length)
        return epoll_wait(poll_fd, events, room, -1);
    uint64_t now = now_ns(), due = heap[0]->due;
    uint64_t left = due > now ? due - now : 0;
    struct timespec limit = {left / 1000000000, left % 1000000000};
    return epoll_pwait2(poll_fd, events, room, &limit, NULL);
}

static int listen_on(const char *host, int port)
{
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, strcmp(host, "localhost") ? host : "127.0.0.1", &address.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) {
        perror("bind");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv)
{
    const char *host = "127.0.0.1";
    int port = 9001;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--version")) {
            puts("version: 0 (fake)");
            return 0;
        }
        if (!strcmp(argv[i], "--port") && i + 1 < argc)
            port = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--host") && i + 1 < argc)
            host = argv[++i];
    }
    signal(SIGPIPE, SIG_IGN);
    poll_fd = epoll_create1(0);
    int listener = listen_on(host, port);
    struct epoll_event event = {EPOLLIN, {.ptr = NULL}};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &event);
    fprintf(stderr, "fakeengine on %s:%d\n", host, port);
    for (;;) {
        struct epoll_event events[512];
        int count = wait_for_events(events, 512);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr)
                serve(events[i].data.ptr, events[i].events);
            else
                accept_all(listener);
        }
        serve_eager();
        serve_due();
    }
}
