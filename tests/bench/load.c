/* The load: keeps a number of connections busy with one chat request each, checks every answer, and prints what it
 * saw as one line of JSON. One thread, epoll, HTTP/1.1 with keep-alive.
 *
 *     load -p PORT [-P PATH] [-m MODEL] [-k KEY] [-H 'Name: value']... [-c CONNECTIONS] [-d SECONDS] [-n REQUESTS]
 *          [-s CHUNKS] [-w DELAY_MS] [-u] [-b TURNS] [-r RAMP_MS] [-t LIMIT]
 *
 *   -s   asks for streams of so many chunks, -w apart (see upstream.c); without it for plain answers
 *   -u   leaves the usage event unasked for; one that comes all the same is an error
 *   -b   a conversation with so many turns of an agent, 1 KB each, and twenty tools
 *   -d   no new request after so many seconds (0: -n alone says when to stop); those under way are waited for
 *   -n   at most so many requests in all
 *   -r   opens the connections evenly over this time, so that streams do not tick in step
 *   -t   ends the run after so many seconds in any case; what is still open then is counted as "cut"
 *
 * A plain answer must have status 200 and a usage; a stream status 200, each chunk once and in order, a usage event
 * when asked for, and [DONE]. "delay" is the time from the stamp in a chunk to its arrival here (one clock, one
 * machine), "latency" that from the request to the end of the answer, "first" that to the first chunk.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
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
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST_HEAD 8192
#define MOST_LINE 16384
#define RECEIVE (256 << 10)

enum place { IN_HEAD, IN_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, IN_COUNTED, UNTIL_CLOSED };

struct asker {
    int fd;                            /* -1 without a connection */
    bool waits, connecting, fresh, ends_with_close, done, usage, disorder;
    enum place place;
    int status;
    long chunks;
    size_t left, text_used, line_used;
    uint64_t asked_us;
    char text[MOST_HEAD];              /* the head, then the lines of chunk sizes */
    char line[MOST_LINE];              /* the unfinished line of the body */
};

struct samples { uint32_t *list; size_t used, room; };

static struct {
    int port, connections;
    const char *path, *model, *key, *headers;
    bool stream, ask_usage;
    long chunks, delay_ms, turns, requests;
    double seconds, ramp_ms, limit;
} plan = {.path = "/v1/chat/completions", .model = "mock", .key = "none", .headers = "", .connections = 1,
          .ask_usage = true, .limit = 60};

static struct samples latencies, firsts, delays;
static long asked, answered, errors, chunks_seen, reconnects;
static char first_error[400], *request;
static size_t request_size;
static uint64_t now, started, last_answer;
static int poller, waiting;

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void keep(struct samples *s, uint64_t us) {
    if (s->used == s->room) {
        s->room = s->room ? 2 * s->room : 1 << 16;
        s->list = realloc(s->list, s->room * sizeof *s->list);
    }
    s->list[s->used++] = us > UINT32_MAX ? UINT32_MAX : (uint32_t)us;
}

static void complain(const struct asker *a, const char *what) {
    errors++;
    if (first_error[0]) return;
    const char *seen = a->line_used ? a->line : a->text;
    snprintf(first_error, sizeof first_error, "%s: status %d, %ld chunks%s%s: %.200s", what, a->status, a->chunks,
             a->usage ? ", usage" : "", a->done ? ", [DONE]" : "", seen);
    for (char *c = first_error; *c; c++)
        if (*c == '"' || *c == '\\' || !isprint((unsigned char)*c)) *c = ' ';
}

/* --- what an answer says ------------------------------------------------------------------------------ */

static bool has(const char *text, size_t size, const char *word) { return memmem(text, size, word, strlen(word)); }

static void read_event(struct asker *a, const char *line, size_t size) {
    if (size < 6 || memcmp(line, "data:", 5)) return;
    const char *stamp = memmem(line, size, "@@", 2);
    if (stamp && stamp + 24 <= line + size) {
        uint64_t written = strtoull(stamp + 2, NULL, 10);
        if (strtol(stamp + 19, NULL, 10) != a->chunks++) a->disorder = true;
        keep(&delays, now > written ? now - written : 0);
        if (a->chunks == 1) keep(&firsts, now - a->asked_us);
        chunks_seen++;
    } else if (has(line, size, "[DONE]")) a->done = true;
    else if (has(line, size, "\"total_tokens\"")) a->usage = true;
}

static void hold(struct asker *a, const char *piece, size_t size) {
    size_t room = sizeof a->line - 1 - a->line_used;
    if (size > room) size = room;
    memcpy(a->line + a->line_used, piece, size);
    a->line_used += size;
    a->line[a->line_used] = 0;
}

/* Takes a piece of the body: for a stream every whole line, for an answer all of it. */
static void read_body(struct asker *a, const char *piece, size_t size) {
    const char *end = piece + size, *newline;
    while (plan.stream && (newline = memchr(piece, '\n', (size_t)(end - piece)))) {
        if (a->line_used) {
            hold(a, piece, (size_t)(newline - piece));
            read_event(a, a->line, a->line_used);
            a->line_used = 0;
        } else read_event(a, piece, (size_t)(newline - piece));
        piece = newline + 1;
    }
    if (piece < end) hold(a, piece, (size_t)(end - piece));
}

static void judge(struct asker *a) {
    bool good = a->status == 200;
    if (plan.stream)
        good = good && a->done && !a->disorder && a->chunks == plan.chunks && a->usage == plan.ask_usage;
    else good = good && has(a->line, a->line_used, "\"total_tokens\"");
    if (good) answered++;
    else complain(a, "bad answer");
    if (good) keep(&latencies, now - a->asked_us);
    last_answer = now;
}

/* --- HTTP, as it comes in pieces; each step says how much it has eaten --------------------------------- */

static size_t eat_head(struct asker *a, const char *piece, size_t size) {
    size_t before = a->text_used, room = sizeof a->text - 1 - before, part = size < room ? size : room;
    memcpy(a->text + before, piece, part);
    a->text_used += part;
    a->text[a->text_used] = 0;
    char *blank = strstr(a->text, "\r\n\r\n");
    if (!blank) {
        if (part == room) a->place = UNTIL_CLOSED;      /* no head is that long: an error at the end */
        return part;
    }
    blank[2] = 0;
    a->status = atoi(a->text + 9);
    const char *length = strcasestr(a->text, "\r\ncontent-length:");
    if (strcasestr(a->text, "\r\nconnection: close")) a->ends_with_close = true;
    if (strcasestr(a->text, "\r\ntransfer-encoding: chunked")) a->place = IN_SIZE;
    else if (length) {
        a->left = strtoul(length + 17, NULL, 10);
        a->place = IN_COUNTED;
    } else a->place = UNTIL_CLOSED;
    a->text_used = 0;
    return (size_t)(blank + 4 - a->text) - before;
}

/* A line of a chunk's size or of the trailer; true in `*whole` when its end was in this piece. */
static size_t eat_line(struct asker *a, const char *piece, size_t size, bool *whole) {
    const char *newline = memchr(piece, '\n', size);
    size_t part = newline ? (size_t)(newline - piece) : size, room = 64 - a->text_used;
    size_t kept = part < room ? part : room;
    memcpy(a->text + a->text_used, piece, kept);
    a->text_used += kept;
    a->text[a->text_used] = 0;
    *whole = newline;
    return part + (newline != NULL);
}

static size_t eat_some(struct asker *a, const char *piece, size_t size) {
    size_t part = size < a->left ? size : a->left;
    if (a->place != AFTER_CHUNK) read_body(a, piece, part);
    a->left -= part;
    return part;
}

/* Takes what was received; true when the answer is complete. */
static bool eat(struct asker *a, const char *piece, size_t size) {
    bool whole;
    while (size) {
        size_t part = 0;
        switch (a->place) {
        case IN_HEAD:
            part = eat_head(a, piece, size);
            if (a->place == IN_COUNTED && !a->left) return true;
            break;
        case IN_SIZE:
            part = eat_line(a, piece, size, &whole);
            if (!whole) break;
            a->left = strtoul(a->text, NULL, 16);
            a->text_used = 0;
            a->place = a->left ? IN_CHUNK : IN_TRAILER;
            break;
        case IN_CHUNK:
            part = eat_some(a, piece, size);
            if (!a->left) {
                a->left = 2;
                a->place = AFTER_CHUNK;
            }
            break;
        case AFTER_CHUNK:
            part = eat_some(a, piece, size);
            if (!a->left) a->place = IN_SIZE;
            break;
        case IN_TRAILER:
            part = eat_line(a, piece, size, &whole);
            if (whole && a->text_used <= 1) return true;
            if (whole) a->text_used = 0;
            break;
        case IN_COUNTED:
            part = eat_some(a, piece, size);
            if (!a->left) return true;
            break;
        case UNTIL_CLOSED:
            part = size;
            read_body(a, piece, size);
            break;
        }
        piece += part;
        size -= part;
    }
    return false;
}

/* --- connections -------------------------------------------------------------------------------------- */

static void hang_up(struct asker *a) {
    if (a->fd >= 0) close(a->fd);
    a->fd = -1;
}

static void give_up(struct asker *a, const char *why) {
    complain(a, why);
    hang_up(a);
    a->waits = false;
    waiting--;
}

static bool dial(struct asker *a) {
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_port = htons((uint16_t)plan.port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1, room = (int)request_size;
    a->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (a->fd < 0) return false;
    setsockopt(a->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (plan.turns) setsockopt(a->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    a->connecting = connect(a->fd, (struct sockaddr *)&there, sizeof there) != 0;
    if (a->connecting && errno != EINPROGRESS) return false;
    struct epoll_event e = {.events = a->connecting ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = a};
    epoll_ctl(poller, EPOLL_CTL_ADD, a->fd, &e);
    a->fresh = true;
    return true;
}

static void send_request(struct asker *a) {
    if (send(a->fd, request, request_size, MSG_NOSIGNAL) != (ssize_t)request_size && a->fresh)
        give_up(a, "the request could not be sent");
}

static void ask(struct asker *a) {
    asked++;
    waiting++;
    a->waits = true;
    a->place = IN_HEAD;
    a->status = 0;
    a->chunks = 0;
    a->ends_with_close = a->done = a->usage = a->disorder = false;
    a->left = a->text_used = a->line_used = 0;
    a->asked_us = now_us();
    if (a->fd < 0 && !dial(a)) give_up(a, "no connection");
    else if (!a->connecting) send_request(a);
}

static bool may_ask(void) {
    if (plan.requests && asked >= plan.requests) return false;
    return plan.seconds <= 0 || (double)(now - started) < plan.seconds * 1e6;
}

/* The other side closed: fine after an answer without a length, once more if it was kept open and idle too long. */
static void closed(struct asker *a) {
    bool untouched = a->place == IN_HEAD && !a->text_used;
    if (untouched && !a->fresh) {
        reconnects++;
        asked--;
        waiting--;
        hang_up(a);
        ask(a);
        return;
    }
    if (a->place != UNTIL_CLOSED) {
        give_up(a, "closed early");
        return;
    }
    judge(a);
    hang_up(a);
    a->waits = false;
    waiting--;
}

static void settle(struct asker *a) {
    judge(a);
    waiting--;
    a->waits = a->fresh = false;
    if (a->ends_with_close || a->status != 200) hang_up(a);
    if (may_ask()) ask(a);
}

static void attend(struct asker *a, uint32_t events) {
    static char piece[RECEIVE];
    if (a->fd < 0 || !a->waits) {
        if (a->fd >= 0) hang_up(a);      /* an idle connection was closed */
        return;
    }
    if (a->connecting) {
        if (events & (EPOLLERR | EPOLLHUP)) {
            give_up(a, "connection refused");
            return;
        }
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = a};
        epoll_ctl(poller, EPOLL_CTL_MOD, a->fd, &e);
        a->connecting = false;
        send_request(a);
        return;
    }
    ssize_t n = recv(a->fd, piece, sizeof piece, 0);
    if (n < 0 && errno == EAGAIN) return;
    now = now_us();
    if (n <= 0) {
        closed(a);
        if (!a->waits && may_ask()) ask(a);
    } else if (eat(a, piece, (size_t)n)) settle(a);
}

/* --- the run ------------------------------------------------------------------------------------------ */

/* What an agent sends again with every call: what it has done and was told, and what it may use. */
static void write_turns(FILE *out) {
    const char *turn =
        ",{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"call_%04d\",\"type\":\"function\","
        "\"function\":{\"name\":\"read_file\",\"arguments\":\"{\\\"path\\\": \\\"tides/level.py\\\", \\\"from\\\": 40}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"call_%04d\",\"content\":\"def level(moon: Body, sun: Body, at: float) -> "
        "float:\\n    \\\"\\\"\\\"Metres above the mean of a long time, for an ocean that covers everything.\\\"\\\"\\\"\\n"
        "    pulls = [body.mass / body.distance(at) ** 3 for body in (moon, sun)]\\n    if any(pull <= 0 for pull in "
        "pulls):\\n        raise ValueError(f\\\"no pull: {pulls!r}\\\")\\n    return SCALE * sum(pull * (3 * cos("
        "body.height(at)) ** 2 - 1) for pull, body in zip(pulls, (moon, sun)))\\n\\n\\ndef turns(level: Level, since: "
        "float, until: float, step: float = 60.0) -> Iterator[Turn]:\\n    before, rises = level(since), True\\n    for "
        "at in frange(since, until, step):\\n        now = level(at)\\n        if (now > before) is not rises:\\n"
        "            yield Turn(at, \\\"high\\\" if rises else \\\"low\\\")\\n            rises = not rises\\n        "
        "before = now\\n\"}";
    for (int i = 0; i < plan.turns; i++) fprintf(out, turn, i, i);
}

static void write_tools(FILE *out) {
    const char *tool =
        "%s{\"type\":\"function\",\"function\":{\"name\":\"tool_%d\",\"description\":\"Reads a part of a file, or says why "
        "it cannot.\",\"parameters\":{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":"
        "\"Below the project.\"},\"from\":{\"type\":\"integer\",\"minimum\":1},\"lines\":{\"type\":\"integer\"}},\"required\":"
        "[\"path\"]}}}";
    for (int i = 0; i < 20; i++) fprintf(out, tool, i ? "," : ",\"tools\":[", i);
    fputc(']', out);
}

static void write_request(void) {
    const char *usage = ",\"stream\":true,\"stream_options\":{\"include_usage\":true}";
    const char *more = !plan.stream ? "" : plan.ask_usage ? usage : ",\"stream\":true";
    char *body;
    size_t size;
    FILE *out = open_memstream(&body, &size);
    fprintf(out,
        "{\"model\":\"%s\",\"messages\":[{\"role\":\"system\",\"content\":\"You answer questions about the sea in "
        "plain words, name what is uncertain, and never use more than five sentences.\"},{\"role\":\"user\","
        "\"content\":\"Why do tides rise and fall twice a day on most coasts, and why are some of them so much "
        "higher than others? #chunks=%ld #delay_ms=%ld\"}", plan.model, plan.chunks, plan.delay_ms);
    write_turns(out);
    fputc(']', out);
    if (plan.turns) write_tools(out);
    fprintf(out, ",\"temperature\":0.7,\"max_tokens\":%ld%s}", plan.stream ? plan.chunks : 200, more);
    if (fclose(out)) exit(1);
    int all = asprintf(&request,
        "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
        "Accept: %s\r\nUser-Agent: load\r\n%sContent-Length: %zu\r\n\r\n%s",
        plan.path, plan.port, plan.key, plan.stream ? "text/event-stream" : "application/json", plan.headers,
        size, body);
    if (all < 0) exit(1);
    request_size = (size_t)all;
    free(body);
}

static int by_size(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static void print_share(const char *name, struct samples *s) {
    qsort(s->list, s->used, sizeof *s->list, by_size);
    const double shares[] = {0.5, 0.9, 0.99, 1};
    const char *names[] = {"p50", "p90", "p99", "max"};
    for (int i = 0; i < 4; i++) {
        if (!s->used) printf("\"%s_%s_us\":null,", name, names[i]);
        else printf("\"%s_%s_us\":%u,", name, names[i], s->list[(size_t)((double)(s->used - 1) * shares[i])]);
    }
}

static void report(void) {
    double wall = (double)((last_answer && !waiting ? last_answer : now_us()) - started) / 1e6;
    printf("{\"requests\":%ld,\"asked\":%ld,\"errors\":%ld,\"cut\":%d,\"chunks\":%ld,\"reconnects\":%ld,"
           "\"wall_s\":%.4f,", answered, asked, errors, waiting, chunks_seen, reconnects, wall);
    print_share("latency", &latencies);
    print_share("first", &firsts);
    print_share("delay", &delays);
    printf("\"first_error\":\"%s\"}\n", first_error);
}

static void run(void) {
    struct asker *askers = calloc((size_t)plan.connections, sizeof *askers);
    struct epoll_event happened[512];
    int opened = 0;
    for (int i = 0; i < plan.connections; i++) askers[i].fd = -1;
    poller = epoll_create1(EPOLL_CLOEXEC);
    started = now = now_us();
    while ((double)(now - started) < plan.limit * 1e6) {
        double passed_ms = (double)(now - started) / 1e3;
        while (opened < plan.connections && may_ask() && passed_ms * plan.connections >= opened * plan.ramp_ms)
            ask(&askers[opened++]);
        bool more = opened < plan.connections && may_ask();
        if (!waiting && !more) break;
        int n = epoll_wait(poller, happened, 512, more ? 1 : 100);
        for (int i = 0; i < n; i++) attend(happened[i].data.ptr, happened[i].events);
        now = now_us();
    }
}

static void add_header(const char *line) {
    char *all;
    if (asprintf(&all, "%s%s\r\n", plan.headers, line) < 0) exit(1);
    plan.headers = all;
}

int main(int count, char **words) {
    for (int o; (o = getopt(count, words, "p:P:m:k:H:c:d:n:s:w:ub:r:t:")) != -1;) switch (o) {
        case 'p': plan.port = atoi(optarg); break;
        case 'P': plan.path = optarg; break;
        case 'm': plan.model = optarg; break;
        case 'k': plan.key = optarg; break;
        case 'H': add_header(optarg); break;
        case 'c': plan.connections = atoi(optarg); break;
        case 'd': plan.seconds = atof(optarg); break;
        case 'n': plan.requests = atol(optarg); break;
        case 's': plan.stream = true; plan.chunks = atol(optarg); break;
        case 'w': plan.delay_ms = atol(optarg); break;
        case 'u': plan.ask_usage = false; break;
        case 'b': plan.turns = atol(optarg); break;
        case 'r': plan.ramp_ms = atof(optarg); break;
        case 't': plan.limit = atof(optarg); break;
        default: return 2;
    }
    if (!plan.port || plan.connections < 1 || (plan.seconds <= 0 && !plan.requests)) {
        fprintf(stderr, "load: needs -p, and -d or -n; see the head of load.c\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    write_request();
    run();
    report();
    return 0;
}
