/*
 * A load generator: one thread, one epoll loop, a fixed number of connections that each send the
 * next request when the answer to the last one is complete. Prints one line of JSON.
 *
 *     loadgen --port P [--host H] [--path /v1/chat/completions] --model M --conc C --dur S
 *             [--warm S] [--ramp S] [--stream] [--n chunks] [--i interval_us] [--s bytes]
 *             [--b burst] [--hdr "Name: value"] [--bodypad bytes]
 *
 * Only what happens after --warm and --ramp counts. Events of the fake engine hold "@@<ns>;", the
 * time at which they were sent, so the delay of each is measured when recv() has returned it.
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

#define ERROR_LIMIT 20000

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- histograms: 64 buckets for each power of two, so values are right within 1.6 % */

#define SUB 64

typedef struct {
    uint64_t bucket[64 * SUB];
    uint64_t count, largest;
    double sum;
} histogram;

static int bucket_of(uint64_t value)
{
    if (value < SUB)
        return value;
    int exponent = 63 - __builtin_clzll(value);
    return (exponent - 5) * SUB + ((value >> (exponent - 6)) & (SUB - 1));
}

static uint64_t value_of(int bucket)
{
    if (bucket < SUB)
        return bucket;
    int exponent = bucket / SUB + 5;
    return (1ull << exponent) + ((uint64_t)(bucket % SUB) << (exponent - 6));
}

static void note(histogram *h, uint64_t value)
{
    h->bucket[bucket_of(value)]++;
    h->count++;
    h->sum += value;
    if (value > h->largest)
        h->largest = value;
}

static double quantile_us(const histogram *h, double q)
{
    uint64_t target = q * h->count, seen = 0;
    for (int i = 0; i < 64 * SUB; i++) {
        seen += h->bucket[i];
        if (seen > target)
            return value_of(i) / 1000.0;
    }
    return h->largest / 1000.0;
}

static void print_histogram(const char *name, const histogram *h)
{
    printf(",\"%s\":{\"n\":%lu,\"mean\":%.1f,\"p10\":%.1f,\"p50\":%.1f,\"p90\":%.1f,"
           "\"p99\":%.1f,\"max\":%.1f}",
           name, h->count, h->count ? h->sum / h->count / 1000 : 0, quantile_us(h, .1),
           quantile_us(h, .5), quantile_us(h, .9), quantile_us(h, .99), h->largest / 1000.0);
}

/* ---- options, the request, and what is counted */

static const char *host = "127.0.0.1", *path = "/v1/chat/completions", *model = "fake";
static const char *extra_header = "";
static int port = 9001, concurrency = 1, streaming;
static long chunks_wanted = 100, interval_us, plain_bytes = 300, burst = 1, padding;
static double duration = 2, warm_up = 0.3, ramp;

static char *request;
static size_t request_length;
static struct sockaddr_in address;
static int poll_fd;

static uint64_t counts_from, counts_until;
static uint64_t requests, chunks, errors, bytes, reconnections, not_200, incomplete;
static histogram latency, first_chunk, one_way, gap;
static char first_error[200];

static int counts(uint64_t t) { return t >= counts_from && t < counts_until; }

/* ---- connections */

enum state { UNUSED, CONNECTING, HEAD, BODY };
enum framing { LENGTH, CHUNKED, UNTIL_CLOSE };
enum chunk_state { SIZE, SIZE_END, DATA, DATA_END, LINE_START, EMPTY_LINE, TRAILER };
enum mark_state { TEXT, ONE_AT, NUMBER };

typedef struct {
    int fd;
    enum state state;
    uint64_t starts_at, asked_at, last_chunk_at;
    size_t written;
    char head[8192];
    int head_length, status, keep_alive;
    enum framing framing;
    long left; /* of the body, or of the chunk */
    enum chunk_state chunk_state;
    enum mark_state mark_state;
    uint64_t mark;
    long chunks; /* of this answer */
} connection;

static void begin_request(connection *c);

static void watch(connection *c, int operation, uint32_t events)
{
    struct epoll_event event = {events, {.ptr = c}};
    epoll_ctl(poll_fd, operation, c->fd, &event);
}

static void reconnect(connection *c)
{
    int one = 1;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    c->state = CONNECTING;
    if (connect(c->fd, (void *)&address, sizeof address) && errno != EINPROGRESS)
        errors++;
    watch(c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void fail(connection *c)
{
    errors++;
    if (errors > ERROR_LIMIT) {
        fprintf(stderr, "too many errors\n");
        exit(2);
    }
    reconnections++;
    reconnect(c);
}

static void write_request(connection *c)
{
    while (c->written < request_length) {
        ssize_t sent = send(c->fd, request + c->written, request_length - c->written, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
            return;
        }
        if (sent < 0) {
            fail(c);
            return;
        }
        c->written += sent;
    }
}

static void begin_request(connection *c)
{
    c->state = HEAD;
    c->head_length = 0;
    c->mark_state = TEXT;
    c->written = 0;
    c->chunks = 0;
    c->last_chunk_at = 0;
    c->asked_at = now_ns();
    write_request(c);
}

static void end_answer(connection *c, uint64_t t)
{
    if (counts(t)) {
        requests++;
        note(&latency, t - c->asked_at);
        if (c->status != 200)
            not_200++;
        else if (streaming && c->chunks < chunks_wanted)
            incomplete++;
    }
    if (c->keep_alive && c->framing != UNTIL_CLOSE) {
        begin_request(c);
    } else {
        reconnections++;
        reconnect(c);
    }
}

/* ---- answers */

static void note_chunk(connection *c, uint64_t sent_at, uint64_t t)
{
    if (counts(t)) {
        chunks++;
        note(&one_way, t > sent_at ? t - sent_at : 0);
        if (!c->chunks)
            note(&first_chunk, t - c->asked_at);
        if (c->last_chunk_at)
            note(&gap, t - c->last_chunk_at);
    }
    c->chunks++;
    c->last_chunk_at = t;
}

/* Look for the engine's time stamps; they may be torn between two reads. */
static void scan(connection *c, const char *p, size_t length, uint64_t t)
{
    for (const char *end = p + length; p < end; p++) {
        switch (c->mark_state) {
        case TEXT:
            p = memchr(p, '@', end - p);
            if (!p)
                return;
            c->mark_state = ONE_AT;
            break;
        case ONE_AT:
            c->mark_state = *p == '@' ? NUMBER : TEXT;
            c->mark = 0;
            break;
        case NUMBER:
            if (*p >= '0' && *p <= '9') {
                c->mark = c->mark * 10 + (*p - '0');
            } else {
                c->mark_state = TEXT;
                if (c->mark > 1000000)
                    note_chunk(c, c->mark, t);
            }
            break;
        }
    }
}

static int hex_digit(char digit) { return digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10; }

/* Walk over a block of a chunked body; answers whether the body ended. */
static int walk_chunks(connection *c, const char *p, size_t length, uint64_t t)
{
    const char *end = p + length;
    while (p < end) {
        switch (c->chunk_state) {
        case SIZE:
            if (*p == '\r' || *p == ';')
                c->chunk_state = SIZE_END;
            else
                c->left = c->left * 16 + hex_digit(*p);
            p++;
            break;
        case SIZE_END:
            if (*p++ == '\n')
                c->chunk_state = c->left ? DATA : LINE_START;
            break;
        case DATA: {
            long part = end - p < c->left ? end - p : c->left;
            scan(c, p, part, t);
            p += part;
            c->left -= part;
            if (!c->left)
                c->chunk_state = DATA_END;
            break;
        }
        case DATA_END:
            if (*p++ == '\n')
                c->chunk_state = SIZE;
            break;
        case LINE_START:
            c->chunk_state = *p++ == '\r' ? EMPTY_LINE : TRAILER;
            break;
        case EMPTY_LINE:
            p++;
            return 1;
        case TRAILER:
            if (*p++ == '\n')
                c->chunk_state = LINE_START;
            break;
        }
    }
    return 0;
}

static int walk_body(connection *c, const char *p, size_t length, uint64_t t)
{
    if (c->framing == CHUNKED)
        return walk_chunks(c, p, length, t);
    if (c->framing == UNTIL_CLOSE) {
        scan(c, p, length, t);
        return 0;
    }
    if (length > (size_t)c->left)
        length = c->left;
    scan(c, p, length, t);
    c->left -= length;
    return c->left == 0;
}

static void keep_first_error(connection *c, const char *body)
{
    if (*first_error)
        return;
    snprintf(first_error, sizeof first_error, "%d %.150s", c->status, body);
    for (char *p = first_error; *p; p++)
        if (*p == '"' || *p == '\\' || *p < 32)
            *p = ' ';
}

static void read_head(connection *c)
{
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    c->status = atoi(c->head + 9);
    c->keep_alive = !strcasestr(c->head, "connection: close") && strncmp(c->head, "HTTP/1.0", 8);
    c->chunk_state = SIZE;
    c->left = 0;
    c->framing = UNTIL_CLOSE;
    if (length) {
        c->framing = LENGTH;
        c->left = strtol(length + 17, NULL, 10);
    }
    if (strcasestr(c->head, "transfer-encoding: chunked"))
        c->framing = CHUNKED;
    c->state = BODY;
}

/* Take from a block what belongs to the head; returns how much, or -1 if it is no head. */
static long take_head(connection *c, const char *p, size_t length)
{
    size_t room = sizeof c->head - 1 - c->head_length;
    size_t part = length < room ? length : room;
    int before = c->head_length;
    memcpy(c->head + before, p, part);
    c->head_length += part;
    c->head[c->head_length] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return c->head_length == sizeof c->head - 1 ? -1 : (long)part;
    end += 4;
    *end = 0;
    long used = end - c->head - before;
    read_head(c);
    return used;
}

/* Take a block; answers whether the connection is still the one it came from. */
static int take_block(connection *c, const char *p, size_t length, uint64_t t)
{
    if (c->state == HEAD) {
        long used = take_head(c, p, length);
        if (used < 0) {
            fail(c);
            return 0;
        }
        p += used;
        length -= used;
        if (c->state == HEAD)
            return 1;
        if (c->status != 200)
            keep_first_error(c, p);
    }
    if (c->state == BODY && (c->framing == LENGTH && c->left == 0 ? 1 : walk_body(c, p, length, t)))
        end_answer(c, t);
    return c->state != CONNECTING;
}

static void read_all(connection *c)
{
    static char block[(1 << 18) + 1];
    for (;;) {
        ssize_t got = recv(c->fd, block, sizeof block - 1, 0);
        uint64_t t = now_ns();
        if (got < 0 && errno == EAGAIN)
            return;
        if (got <= 0) {
            if (got == 0 && c->state == BODY && c->framing == UNTIL_CLOSE)
                end_answer(c, t);
            else
                fail(c);
            return;
        }
        if (counts(t))
            bytes += got;
        block[got] = 0;
        if (!take_block(c, block, got, t) || (size_t)got < sizeof block - 1)
            return;
    }
}

static void serve(connection *c, uint32_t events)
{
    if (c->state == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error || (events & EPOLLERR)) {
            usleep(500);
            fail(c);
            return;
        }
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
        begin_request(c);
        return;
    }
    if ((events & EPOLLOUT) && c->written < request_length) {
        write_request(c);
        if (c->state != CONNECTING && c->written == request_length)
            watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
    if (c->state != CONNECTING && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
        read_all(c);
}

/* ---- the run */

static void read_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--stream")) {
            streaming = 1;
            continue;
        }
        if (i + 1 == argc) {
            fprintf(stderr, "%s needs a value\n", name);
            exit(2);
        }
        const char *value = argv[++i];
        if (!strcmp(name, "--port")) port = atoi(value);
        else if (!strcmp(name, "--host")) host = value;
        else if (!strcmp(name, "--path")) path = value;
        else if (!strcmp(name, "--model")) model = value;
        else if (!strcmp(name, "--conc")) concurrency = atoi(value);
        else if (!strcmp(name, "--dur")) duration = atof(value);
        else if (!strcmp(name, "--warm")) warm_up = atof(value);
        else if (!strcmp(name, "--ramp")) ramp = atof(value);
        else if (!strcmp(name, "--n")) chunks_wanted = atol(value);
        else if (!strcmp(name, "--i")) interval_us = atol(value);
        else if (!strcmp(name, "--s")) plain_bytes = atol(value);
        else if (!strcmp(name, "--b")) burst = atol(value);
        else if (!strcmp(name, "--hdr")) extra_header = value;
        else if (!strcmp(name, "--bodypad")) padding = atol(value);
        else {
            fprintf(stderr, "unknown option %s\n", name);
            exit(2);
        }
    }
}

static void compose_request(void)
{
    char *pad = malloc(padding + 1), *body = malloc(padding + 4096);
    memset(pad, 'y', padding);
    pad[padding] = 0;
    int length = sprintf(body,
                         "{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":"
                         "\"FK:n=%ld,i=%ld,s=%ld,b=%ld;%s\"}],\"stream\":%s,\"max_tokens\":64,"
                         "\"temperature\":0.7}",
                         model, chunks_wanted, interval_us, plain_bytes, burst, pad,
                         streaming ? "true" : "false");
    request = malloc(length + 2048);
    request_length = sprintf(request,
                             "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n"
                             "Accept: */*\r\nAuthorization: Bearer sk-1234\r\nUser-Agent: loadgen\r\n"
                             "%s%sContent-Length: %d\r\n\r\n%s",
                             path, host, port, extra_header, *extra_header ? "\r\n" : "", length,
                             body);
    free(pad);
    free(body);
}

static void run(connection *connections)
{
    struct epoll_event events[1024];
    uint64_t begun_at = now_ns();
    int begun = 0;
    counts_from = begun_at + (uint64_t)((warm_up + ramp) * 1e9);
    counts_until = counts_from + (uint64_t)(duration * 1e9);
    for (int i = 0; i < concurrency; i++) {
        connections[i].fd = -1;
        connections[i].starts_at = begun_at + (uint64_t)(ramp * 1e9 * i / concurrency);
    }
    for (uint64_t now; (now = now_ns()) < counts_until;) {
        while (begun < concurrency && connections[begun].starts_at <= now)
            reconnect(&connections[begun++]);
        uint64_t next = begun < concurrency ? connections[begun].starts_at : counts_until;
        int wait_ms = next > now ? (next - now) / 1000000 + 1 : 0;
        int count = epoll_wait(poll_fd, events, 1024, wait_ms);
        for (int i = 0; i < count; i++)
            serve(events[i].data.ptr, events[i].events);
    }
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    read_options(argc, argv);
    compose_request();
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    inet_pton(AF_INET, host, &address.sin_addr);
    poll_fd = epoll_create1(0);
    connection *connections = calloc(concurrency, sizeof *connections);
    run(connections);
    long served = 0;
    for (int i = 0; i < concurrency; i++)
        served += connections[i].chunks > 0 || connections[i].state == BODY;
    printf("{\"concurrency\":%d,\"duration\":%.2f,\"requests\":%lu,\"requests_per_second\":%.1f,"
           "\"chunks\":%lu,\"chunks_per_second\":%.1f,\"bytes\":%lu,\"errors\":%lu,"
           "\"not_200\":%lu,\"incomplete\":%lu,\"reconnections\":%lu,\"served\":%ld,"
           "\"first_error\":\"%s\"",
           concurrency, duration, requests, requests / duration, chunks, chunks / duration, bytes,
           errors, not_200, incomplete, reconnections, served, first_error);
    print_histogram("latency_us", &latency);
    print_histogram("first_chunk_us", &first_chunk);
    print_histogram("one_way_us", &one_way);
    print_histogram("gap_us", &gap);
    puts("}");
    return 0;
}
