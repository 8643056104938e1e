/* A stand-in for a model server: answers chat completions at the speed of one core, so that what is measured is
 * the gateway in front of it. One thread, epoll, HTTP/1.1 with keep-alive.
 *
 *     upstream PORT
 *
 *   POST <anything>/v1/chat/completions   an answer of 0.66 KB, or, with "stream":true, a stream of events
 *   POST <anything>/tokenize/count        {"count":57}
 *   GET  <anything>/v1/models             one model, "mock"
 *   GET  <anything>/health                and a few more that routers ask for when they start
 *   GET  /count                           {"posts":N,"streams":N,"finished":N}: chat completions since the start
 *
 * A stream is steered by words anywhere in the request's body (the load puts them into the prompt, because every
 * gateway passes a prompt on): `#chunks=60 #delay_ms=50`. A delay of 0 means as fast as the reader reads. Each
 * event is one HTTP chunk and one write(), Nagle off. The content of an event is a stamp, "@@" + 16 digits of
 * monotonic microseconds + "." + 5 digits of the event's number, so that the reader can tell delay and order.
 * With "include_usage":true an event with the usage and no choices comes before [DONE].
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_FDS 32768
#define LARGEST_REQUEST (16 << 20)
#define WHEEL 8192                     /* one slot a millisecond; also the longest delay */
#define LITERAL(text) (text), sizeof(text) - 1

struct link { struct link *before, *after; };

struct client {
    struct link line;                  /* first member: in a slot of the wheel, or among the eager */
    int fd;
    bool open, closing, waits_for_room, streaming, wants_usage;
    long event, chunks, delay_ms;
    uint64_t due_ms;
    char *in, *out;
    size_t in_used, in_room, out_used, out_sent, out_room;
};

static struct client clients[MOST_FDS];
static struct link wheel[WHEEL], eager;
static uint64_t turned_to_ms;
static long on_wheel, posts, streams, finished;
static int poller;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* --- lines of streams: a ring with a head each -------------------------------------------------------- */

static void empty_line(struct link *head) { head->before = head->after = head; }

static void leave(struct client *c) {
    struct link *l = &c->line;
    if (l->after == NULL) return;
    l->before->after = l->after;
    l->after->before = l->before;
    l->before = l->after = NULL;
    if (c->delay_ms) on_wheel--;
}

static void join(struct client *c) {
    struct link *head = c->delay_ms ? &wheel[c->due_ms % WHEEL] : &eager;
    c->line.before = head->before;
    c->line.after = head;
    head->before->after = &c->line;
    head->before = &c->line;
    if (c->delay_ms) on_wheel++;
}

/* --- writing ------------------------------------------------------------------------------------------ */

static void hang_up(struct client *c) {
    leave(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    memset(c, 0, sizeof *c);
}

static void watch(struct client *c, bool for_room) {
    if (c->waits_for_room == for_room) return;
    struct epoll_event e = {.events = EPOLLIN | (for_room ? EPOLLOUT : 0), .data.fd = c->fd};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
    c->waits_for_room = for_room;
}

static void say(struct client *c, const char *text, size_t size) {
    if (c->out_used + size > c->out_room) {
        c->out_room = 2 * (c->out_used + size);
        c->out = realloc(c->out, c->out_room);
    }
    memcpy(c->out + c->out_used, text, size);
    c->out_used += size;
}

/* Sends what was said; false when the client is gone. What finds no room goes later. */
static bool flush(struct client *c) {
    while (c->out_sent < c->out_used) {
        ssize_t n = send(c->fd, c->out + c->out_sent, c->out_used - c->out_sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            watch(c, true);
            return true;
        }
        if (n < 0) {
            hang_up(c);
            return false;
        }
        c->out_sent += (size_t)n;
    }
    c->out_sent = c->out_used = 0;
    if (c->closing && !c->streaming) {
        hang_up(c);
        return false;
    }
    watch(c, false);
    return true;
}

static bool answer(struct client *c, const char *status, const char *json) {
    char head[200];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nserver: mock\r\ncontent-type: application/json\r\n"
                     "content-length: %zu\r\n\r\n", status, strlen(json));
    say(c, head, (size_t)n);
    say(c, json, strlen(json));
    return flush(c);
}

/* --- events of a stream: the role, `chunks` stamps, the end, perhaps the usage, [DONE] ----------------- */

#define EVENT(rest) "data: {\"id\":\"chatcmpl-5d02c1f7a96b4e8373d0b\",\"object\":\"chat.completion.chunk\"," \
    "\"created\":1767225600,\"model\":\"mock\",\"choices\":[" rest "}\n\n"
#define CHOICE(delta, reason) "{\"index\":0,\"delta\":{" delta "},\"finish_reason\":" reason "}]"

static void digits(char *at, uint64_t number, int count) {
    while (count--) {
        at[count] = (char)('0' + number % 10);
        number /= 10;
    }
}

static void say_chunk(struct client *c, const char *data, size_t size) {
    char frame[400];
    int n = sprintf(frame, "%zx\r\n", size);
    memcpy(frame + n, data, size);
    memcpy(frame + n + size, "\r\n", 2);
    say(c, frame, (size_t)n + size + 2);
}

static void say_stamp(struct client *c, long number) {
    char event[] = EVENT(CHOICE("\"content\":\"@@0000000000000000.00000\"", "null"));
    char *stamp = strstr(event, "@@");
    digits(stamp + 2, now_us(), 16);
    digits(stamp + 19, (uint64_t)number, 5);
    say_chunk(c, event, sizeof event - 1);
}

static void say_usage(struct client *c) {
    char event[400];
    int n = snprintf(event, sizeof event, EVENT("],\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":%ld,"
                     "\"total_tokens\":%ld}"), c->chunks, c->chunks + 57);
    say_chunk(c, event, (size_t)n);
}

/* Says the next event in a write of its own; false when the stream or the client is at its end. */
static bool say_event(struct client *c) {
    long at = c->event++;
    if (at == 0) say_chunk(c, LITERAL(EVENT(CHOICE("\"role\":\"assistant\",\"content\":\"\"", "null"))));
    else if (at <= c->chunks) say_stamp(c, at - 1);
    else if (at == c->chunks + 1) say_chunk(c, LITERAL(EVENT(CHOICE("", "\"stop\""))));
    else if (at == c->chunks + 2 && c->wants_usage) say_usage(c);
    else {
        say_chunk(c, LITERAL("data: [DONE]\n\n"));
        say(c, LITERAL("0\r\n\r\n"));
        c->streaming = false;
        finished++;
        leave(c);
    }
    return flush(c) && c->streaming;
}

static void begin_stream(struct client *c) {
    c->streaming = true;
    c->event = 0;
    streams++;
    say(c, LITERAL("HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                   "cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"));
    c->due_ms = now_us() / 1000 + (uint64_t)c->delay_ms;
    join(c);
    say_event(c);
}

/* --- reading ------------------------------------------------------------------------------------------ */

struct request { const char *method, *path, *head, *body; size_t path_size, head_size, body_size; };

static const char *header(const struct request *r, const char *name) {
    size_t size = strlen(name);
    const char *at = r->head, *end = r->head + r->head_size;
    while ((at = memchr(at, '\n', (size_t)(end - at))) != NULL && ++at + size < end)
        if (!strncasecmp(at, name, size)) return at + size + strspn(at + size, " \t");
    return NULL;
}

static long number_after(const struct request *r, const char *word, long otherwise) {
    const char *at = memmem(r->body, r->body_size, word, strlen(word));
    return at ? strtol(at + strlen(word), NULL, 10) : otherwise;
}

static bool is_true(const struct request *r, const char *member) {
    const char *at = memmem(r->body, r->body_size, member, strlen(member));
    return at && !strncmp(at + strlen(member) + strspn(at + strlen(member), " :"), "true", 4);
}

static bool ends(const struct request *r, const char *with) {
    size_t size = strlen(with);
    return r->path_size >= size && !memcmp(r->path + r->path_size - size, with, size);
}

static bool is_post(const struct request *r) { return !memcmp(r->method, "POST ", 5); }

static void chat(struct client *c, const struct request *r) {
    posts++;
    if (is_true(r, "\"stream\"")) {
        c->wants_usage = is_true(r, "\"include_usage\"");
        c->chunks = number_after(r, "#chunks=", 20);
        c->delay_ms = number_after(r, "#delay_ms=", 0);
        if (c->chunks < 0 || c->delay_ms < 0 || c->delay_ms >= WHEEL) {
            answer(c, "400 Bad Request", "{\"error\":{\"message\":\"#chunks or #delay_ms out of range\"}}");
            return;
        }
        begin_stream(c);
        return;
    }
    finished++;
    answer(c, "200 OK",
        "{\"id\":\"chatcmpl-5d02c1f7a96b4e8373d0b\",\"object\":\"chat.completion\",\"created\":1767225600,"
        "\"model\":\"mock\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\""
        "Tides rise and fall because the Moon, and to a lesser degree the Sun, pull more strongly on the near side of the Earth than on the "
        "far side. Two bulges follow, and as the planet turns beneath them most coasts see high water twice "
        "a day; around new and full Moon both pulls add up to spring tides, in between to neap.\",\"refusal\":null},\"logprobs\":null,"
        "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":71,\"total_tokens\":128,"
        "\"prompt_tokens_details\":{\"cached_tokens\":0}}}");
}

static void serve(struct client *c, const struct request *r) {
    char json[160];
    if (header(r, "transfer-encoding:")) {
        c->closing = true;
        answer(c, "411 Length Required", "{\"error\":{\"message\":\"send a content-length\"}}");
    } else if (is_post(r) && ends(r, "/chat/completions")) chat(c, r);
    else if (is_post(r) && ends(r, "/tokenize/count")) answer(c, "200 OK", "{\"count\":57}");
    else if (ends(r, "/v1/models"))
        answer(c, "200 OK", "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\","
                            "\"created\":1767225600,\"owned_by\":\"bench\"}]}");
    else if (ends(r, "/health") || ends(r, "/health_generate")) answer(c, "200 OK", "{\"status\":\"ok\"}");
    else if (ends(r, "model_info") || ends(r, "server_info"))
        answer(c, "200 OK", "{\"model_path\":\"mock\",\"served_model_name\":\"mock\",\"model_id\":\"mock\","
                            "\"is_generation\":true,\"tp_size\":1,\"dp_size\":1,\"version\":\"0.5.5\"}");
    else if (ends(r, "/count")) {
        snprintf(json, sizeof json, "{\"posts\":%ld,\"streams\":%ld,\"finished\":%ld}", posts, streams, finished);
        answer(c, "200 OK", json);
    } else answer(c, "404 Not Found", "{\"error\":{\"message\":\"no such path\"}}");
}

/* Takes one complete request out of the buffer; false when there is none yet. */
static bool take(struct client *c) {
    char *blank = c->in_used ? memmem(c->in, c->in_used, "\r\n\r\n", 4) : NULL;
    if (!blank) return false;
    struct request r = {.method = c->in, .head = c->in, .head_size = (size_t)(blank + 2 - c->in), .body = blank + 4};
    const char *space = memchr(c->in, ' ', r.head_size), *length = header(&r, "content-length:");
    if (!space || r.head_size < 16) {
        hang_up(c);
        return false;
    }
    r.path = space + 1;
    r.path_size = strcspn(r.path, " ?\r");
    r.body_size = length ? strtoul(length, NULL, 10) : 0;
    size_t whole = (size_t)(r.body - c->in) + r.body_size;
    if (whole > c->in_used) return false;
    const char *connection = header(&r, "connection:");
    c->closing = connection && !strncasecmp(connection, "close", 5);
    int fd = c->fd;
    serve(c, &r);
    if (!clients[fd].open) return false;
    c->in_used -= whole;
    memmove(c->in, c->in + whole, c->in_used);
    return true;
}

/* Serves what has come; a request behind a running stream waits for its end. */
static void advance(struct client *c) {
    while (c->open && !c->streaming && take(c)) continue;
}

static void receive(struct client *c) {
    if (c->in_room - c->in_used < 4096) {
        c->in_room = c->in_room ? 2 * c->in_room : 8192;
        c->in = realloc(c->in, c->in_room);
    }
    ssize_t n = recv(c->fd, c->in + c->in_used, c->in_room - c->in_used - 1, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0 || c->in_used > LARGEST_REQUEST) {
        hang_up(c);
        return;
    }
    c->in_used += (size_t)n;
    c->in[c->in_used] = 0;               /* a word search may not run off the end */
    advance(c);
}

/* --- turning ------------------------------------------------------------------------------------------ */

static struct client *of(struct link *l) { return (struct client *)l; }

/* One event for each stream without a delay whose last one went out: separate writes, in turn. */
static bool turn_eager(void) {
    bool busy = false;
    for (struct link *l = eager.after, *next; l != &eager; l = next) {
        struct client *c = of(l);
        next = l->after;
        if (c->waits_for_room) continue;
        if (say_event(c)) busy = true;
        else advance(c);
    }
    return busy;
}

static void turn_slot(struct link *head, uint64_t until_ms) {
    struct link due;                    /* taken aside: a stream may come back into this very slot */
    empty_line(&due);
    if (head->after != head) {
        due = *head;
        due.after->before = due.before->after = &due;
        empty_line(head);
    }
    while (due.after != &due) {
        struct client *c = of(due.after);
        leave(c);
        if (c->due_ms > until_ms) join(c);
        else {
            c->due_ms += (uint64_t)c->delay_ms;
            if (c->due_ms <= until_ms) c->due_ms = until_ms + 1;
            join(c);
            if (!c->waits_for_room && !say_event(c)) advance(c);
        }
    }
}

static void turn_wheel(void) {
    uint64_t now_ms = now_us() / 1000;
    if (now_ms - turned_to_ms > WHEEL) turned_to_ms = now_ms - WHEEL;
    while (turned_to_ms < now_ms) {
        turned_to_ms++;
        if (on_wheel) turn_slot(&wheel[turned_to_ms % WHEEL], now_ms);
    }
}

static void greet(int door) {
    int fd, on = 1;
    while ((fd = accept4(door, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (fd >= MOST_FDS) {
            close(fd);
            continue;
        }
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        clients[fd].fd = fd;
        clients[fd].open = true;
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

static int open_door(int port) {
    int door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(door, (struct sockaddr *)&here, sizeof here) || listen(door, 4096)) {
        perror("upstream: listen");
        exit(1);
    }
    return door;
}

static void attend(int door, const struct epoll_event *e) {
    struct client *c = &clients[e->data.fd];
    if (e->data.fd == door) {
        greet(door);
        return;
    }
    if (c->open && (e->events & EPOLLOUT) && flush(c)) advance(c);
    if (c->open && (e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))) receive(c);
}

int main(int count, char **words) {
    if (count != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    struct rlimit most = {MOST_FDS, MOST_FDS};
    if (setrlimit(RLIMIT_NOFILE, &most)) {
        getrlimit(RLIMIT_NOFILE, &most);
        most.rlim_cur = most.rlim_max;
        setrlimit(RLIMIT_NOFILE, &most);
    }
    signal(SIGPIPE, SIG_IGN);
    empty_line(&eager);
    for (int i = 0; i < WHEEL; i++) empty_line(&wheel[i]);
    turned_to_ms = now_us() / 1000;
    int door = open_door(atoi(words[1]));
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = door}, happened[512];
    epoll_ctl(poller, EPOLL_CTL_ADD, door, &e);
    for (bool busy = false;;) {
        int n = epoll_wait(poller, happened, 512, busy ? 0 : on_wheel ? 1 : -1);
        for (int i = 0; i < n; i++) attend(door, &happened[i]);
        turn_wheel();
        busy = turn_eager();
    }
}
