/* An emulated link between two network namespaces, for flyx's end-to-end tests and benchmarks.
 *
 * A TUN device in each namespace; between them, in each direction: a bottleneck of a given rate with a drop-tail
 * queue, random loss (single packets or bursts), then a propagation delay with jitter, which reorders.
 *
 *     emulator NAMESPACE ADDRESS NAMESPACE ADDRESS RATE_MBIT DELAY_MS LOSS_PERCENT BURST QUEUE_MS JITTER_MS MTU SEED
 *
 * DELAY_MS is one way, QUEUE_MS the buffer as time at the rate, BURST the mean length of a burst of losses in
 * packets; the same SEED gives the same losses. SIGUSR1 cuts the link, SIGUSR2 mends it. Prints "ready", and on
 * SIGTERM what each direction has carried, as JSON. Built and started by link.py. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { MAX_PACKET = 65536, READS_IN_A_ROW = 64 };

struct packet {
    int64_t due;
    int size;
    struct packet *earlier, *later;
    unsigned char data[];
};

struct direction {
    int in, out;
    int64_t free_at;               /* when the bottleneck has sent all that it has accepted */
    struct packet *first, *last;   /* under way, by the time they are due */
    int in_burst;
    uint64_t random;
    uint64_t packets, bytes, overflowed, lost, cut;
};

static double rate, loss, burst;
static int64_t delay, jitter, queue;
static volatile sig_atomic_t stopping, down;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* xorshift64* */
static double uniform(struct direction *d) {
    d->random ^= d->random >> 12;
    d->random ^= d->random << 25;
    d->random ^= d->random >> 27;
    return (double)((d->random * 2685821657736338717ULL) >> 11) / 9007199254740992.0;
}

/* Gilbert's model: in a burst everything is lost; its mean length is `burst`, the mean loss `loss`. */
static int is_lost(struct direction *d) {
    if (loss <= 0) return 0;
    if (burst <= 1) return uniform(d) < loss;
    if (d->in_burst)
        d->in_burst = uniform(d) >= 1 / burst;
    else
        d->in_burst = uniform(d) < loss / (burst * (1 - loss));
    return d->in_burst;
}

static int open_tun(const char *namespace, const char *address, int mtu) {
    char path[256];
    snprintf(path, sizeof path, "/var/run/netns/%s", namespace);
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    if (ns < 0) die(path);
    if (setns(ns, CLONE_NEWNET)) die("setns");
    close(ns);
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) die("/dev/net/tun");
    struct ifreq r = {0};
    strcpy(r.ifr_name, "wan0");
    r.ifr_flags = IFF_TUN | IFF_NO_PI;
    if (ioctl(fd, TUNSETIFF, &r)) die("TUNSETIFF");
    int s = socket(AF_INET, SOCK_DGRAM, 0);
    if (s < 0) die("socket");
    struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;
    memset(a, 0, sizeof *a);
    a->sin_family = AF_INET;
    if (inet_pton(AF_INET, address, &a->sin_addr) != 1) die(address);
    if (ioctl(s, SIOCSIFADDR, &r)) die("SIOCSIFADDR");
    inet_pton(AF_INET, "255.255.255.0", &a->sin_addr);
    if (ioctl(s, SIOCSIFNETMASK, &r)) die("SIOCSIFNETMASK");
    r.ifr_mtu = mtu;
    if (ioctl(s, SIOCSIFMTU, &r)) die("SIOCSIFMTU");
    r.ifr_qlen = 10000;
    if (ioctl(s, SIOCSIFTXQLEN, &r)) die("SIOCSIFTXQLEN");
    r.ifr_flags = IFF_UP | IFF_RUNNING;
    if (ioctl(s, SIOCSIFFLAGS, &r)) die("SIOCSIFFLAGS");
    close(s);
    return fd;
}

static void insert(struct direction *d, struct packet *p) {
    struct packet *before = d->last;
    while (before && before->due > p->due) before = before->earlier;
    p->earlier = before;
    p->later = before ? before->later : d->first;
    *(p->later ? &p->later->earlier : &d->last) = p;
    *(before ? &before->later : &d->first) = p;
}

static void accept_packets(struct direction *d, int64_t now) {
    static unsigned char data[MAX_PACKET];
    for (int i = 0; i < READS_IN_A_ROW; i++) {
        int size = read(d->in, data, sizeof data);
        if (size <= 0) return;
        if (down) { d->cut++; continue; }
        int64_t start = d->free_at > now ? d->free_at : now;
        if (start - now > queue) { d->overflowed++; continue; }
        d->free_at = start + (int64_t)(size * 8e9 / rate);
        d->packets++;
        d->bytes += size;
        if (is_lost(d)) { d->lost++; continue; }
        struct packet *p = malloc(sizeof *p + size);
        if (!p) die("malloc");
        p->due = d->free_at + delay + (jitter ? (int64_t)(uniform(d) * jitter) : 0);
        p->size = size;
        memcpy(p->data, data, size);
        insert(d, p);
    }
}

static void deliver_packets(struct direction *d, int64_t now) {
    struct packet *p;
    while ((p = d->first) && p->due <= now) {
        if (write(d->out, p->data, p->size) < 0 && errno == EAGAIN) return;
        d->first = p->later;
        *(p->later ? &p->later->earlier : &d->last) = NULL;
        free(p);
    }
}

static void handle(int signal) {
    if (signal == SIGUSR1) down = 1;
    else if (signal == SIGUSR2) down = 0;
    else stopping = 1;
}

int main(int argc, char **argv) {
    if (argc != 13) {
        fputs("see the head of emulator.c for the arguments\n", stderr);
        return 2;
    }
    rate = atof(argv[5]) * 1e6;
    delay = (int64_t)(atof(argv[6]) * 1e6);
    loss = atof(argv[7]) / 100;
    burst = atof(argv[8]);
    queue = (int64_t)(atof(argv[9]) * 1e6);
    jitter = (int64_t)(atof(argv[10]) * 1e6);
    int mtu = atoi(argv[11]);
    uint64_t seed = strtoull(argv[12], NULL, 10);
    int a = open_tun(argv[1], argv[2], mtu), b = open_tun(argv[3], argv[4], mtu);
    struct direction d[2] = {{.in = a, .out = b, .random = seed * 2654435761u + 1},
                             {.in = b, .out = a, .random = seed * 40503u + 7}};
    struct sigaction action = {.sa_handler = handle};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
    sigaction(SIGUSR2, &action, NULL);
    puts("ready");
    fflush(stdout);
    while (!stopping) {
        int64_t next = INT64_MAX, now = now_ns();
        for (int i = 0; i < 2; i++)
            if (d[i].first && d[i].first->due < next) next = d[i].first->due;
        struct pollfd fds[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};
        int64_t left = next > now ? next - now : 0;
        struct timespec wait = {left / 1000000000, left % 1000000000};
        if (ppoll(fds, 2, next == INT64_MAX ? NULL : &wait, NULL) < 0 && errno != EINTR) die("ppoll");
        now = now_ns();
        for (int i = 0; i < 2; i++) accept_packets(&d[i], now);
        now = now_ns();
        for (int i = 0; i < 2; i++) deliver_packets(&d[i], now);
    }
    printf("[");
    for (int i = 0; i < 2; i++)
        printf("%s{\"packets\": %llu, \"bytes\": %llu, \"overflowed\": %llu, \"lost\": %llu, \"cut\": %llu}",
               i ? ", " : "", (unsigned long long)d[i].packets, (unsigned long long)d[i].bytes,
               (unsigned long long)d[i].overflowed, (unsigned long long)d[i].lost, (unsigned long long)d[i].cut);
    puts("]");
    return 0;
}
