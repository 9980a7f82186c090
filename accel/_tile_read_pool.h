/* Threads that share the items of a kernel; included by _tile_read.c.
 *
 * They are the kernels' own, because Python's need the GIL to start: a read takes some tens of microseconds, a
 * thread that is woken, waits for the GIL and is woken again often ends on the processor of the one that woke it.
 * These spin for a while after their work, so that reads that follow each other find them awake, then sleep.
 * Nobody waits for a thread that did not get a processor: parts go to whoever asks for the next one.
 */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define MOST_WORKERS 255
/* As long as a program may spend between two reads: an empty round trip through sleep costs half of it. */
#define SPIN_NS 100000
/* Parts for each thread: more are fairer where one thread is slower, but cost a work space each. */
#define PARTS 2

/* What is shared now: parts of [first, first + items), in multiples of `unit`. */
struct job {
    pcmc_part *part;
    void *context;
    int64_t first, items, unit, parts;
    _Atomic int64_t next;
    _Atomic int failed;
};

/* IDLE to POSTED by the caller; then to BUSY by the worker, which ends IDLE, or back to IDLE by the caller. */
enum { IDLE, POSTED, BUSY };

struct worker {
    pthread_t thread;
    _Atomic int state, asleep;
    struct job *job;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    char apart[128]; /* workers share no cache line */
};

static struct {
    pthread_mutex_t busy; /* held by the one call that uses the workers */
    int n, forks;
    struct worker *workers[MOST_WORKERS];
} pool = {.busy = PTHREAD_MUTEX_INITIALIZER};

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Whether the worker came into this state within SPIN_NS. */
static int spin(struct worker *w, int state)
{
    struct timespec start, now;
    clock_gettime(CLOCK_MONOTONIC, &start);
    do {
        for (int i = 0; i < 16; i++, relax())
            if (atomic_load_explicit(&w->state, memory_order_acquire) == state)
                return 1;
        clock_gettime(CLOCK_MONOTONIC, &now);
    } while ((now.tv_sec - start.tv_sec) * 1000000000 + now.tv_nsec - start.tv_nsec < SPIN_NS);
    return 0;
}

static int64_t bound(const struct job *job, int64_t i)
{
    return job->first + (i == job->parts ? job->items : job->items * i / (job->parts * job->unit) * job->unit);
}

static void work_on(struct job *job)
{
    for (int64_t i; (i = atomic_fetch_add(&job->next, 1)) < job->parts;)
        if (job->part(job->context, bound(job, i), bound(job, i + 1)))
            atomic_store(&job->failed, 1);
}

static void *work(void *given)
{
    struct worker *w = given;
    for (;;) {
        int posted = POSTED;
        if (!spin(w, POSTED)) {
            pthread_mutex_lock(&w->lock);
            atomic_store(&w->asleep, 1);
            while (atomic_load(&w->state) != POSTED)
                pthread_cond_wait(&w->wake, &w->lock);
            atomic_store(&w->asleep, 0);
            pthread_mutex_unlock(&w->lock);
        }
        if (atomic_compare_exchange_strong(&w->state, &posted, BUSY)) {
            work_on(w->job);
            atomic_store_explicit(&w->state, IDLE, memory_order_release);
        }
    }
    return NULL;
}

/* A sleeping thread often wakes on the processor of the one that woke it, behind it, even where another is idle
 * (most of all on virtual machines): it may have any of the caller's but that one. */
static void keep_apart(struct worker *w)
{
#if defined(__linux__)
    cpu_set_t cpus;
    int here = sched_getcpu();
    if (here < 0 || here >= CPU_SETSIZE || sched_getaffinity(0, sizeof cpus, &cpus))
        return;
    CPU_CLR(here, &cpus);
    if (CPU_COUNT(&cpus))
        pthread_setaffinity_np(w->thread, sizeof cpus, &cpus);
#else
    (void)w;
#endif
}

static void post(struct worker *w, struct job *job)
{
    w->job = job;
    /* Either this sees that the worker is asleep, or the worker sees the job before it sleeps. */
    atomic_store(&w->state, POSTED);
    if (atomic_load(&w->asleep)) {
        keep_apart(w);
        pthread_mutex_lock(&w->lock);
        pthread_cond_signal(&w->wake);
        pthread_mutex_unlock(&w->lock);
    }
}

/* Once there is nothing left to ask for: waits for the worker unless it has not even begun. */
static void dismiss(struct worker *w)
{
    int posted = POSTED;
    struct timespec nap = {0, 20000};
    if (!atomic_compare_exchange_strong(&w->state, &posted, IDLE))
        while (!spin(w, IDLE))
            nanosleep(&nap, NULL); /* its processor may be ours */
}

#if !defined(_WIN32)
/* Threads do not survive a fork. */
static void forget_workers(void)
{
    pool.n = 0;
    pthread_mutex_init(&pool.busy, NULL);
}
#endif

/* One worker more; 0 if there can't be. */
static int add_worker(void)
{
    struct worker *w = calloc(1, sizeof *w);
    int failed = 1;
    if (!w)
        return 0;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
#if !defined(_WIN32)
    sigset_t all, before; /* signals are for Python's threads */
    if (!pool.forks)
        pool.forks = !pthread_atfork(NULL, NULL, forget_workers);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    failed = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
#else
    failed = pthread_create(&w->thread, NULL, work, w);
#endif
    if (failed) {
        free(w);
        return 0;
    }
    pthread_detach(w->thread);
    pool.workers[pool.n++] = w;
    return 1;
}

int pcmc_share(pcmc_part *part, void *context, int64_t first, int64_t last, int64_t threads)
{
    int64_t items = last - first;
    threads = min64(min64(threads, items), MOST_WORKERS + 1);
    /* Where another thread of the program has the workers, the processors have work already. */
    if (threads <= 1 || pthread_mutex_trylock(&pool.busy))
        return part(context, first, last);
    while (pool.n < threads - 1 && add_worker())
        ;
    threads = min64(threads, pool.n + 1);
    /* Whole eights where there are enough: kernels take so many vectors at once. */
    struct job job = {.part = part, .context = context, .first = first, .items = items};
    job.unit = items >= 16 * threads ? 8 : 1;
    job.parts = min64(threads * PARTS, items / job.unit);
    for (int64_t i = 1; i < threads; i++)
        post(pool.workers[i - 1], &job);
    work_on(&job);
    for (int64_t i = 1; i < threads; i++)
        dismiss(pool.workers[i - 1]);
    pthread_mutex_unlock(&pool.busy);
    return atomic_load(&job.failed) ? -1 : 0;
}
