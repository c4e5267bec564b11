/*
 * Copyright (c) 2026, the livemigrate.criu authors
 * GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * LAB ONLY. The lab's hosts share the kernel of a machine whose capability bounding set may lack CAP_SYS_RESOURCE.
 * Without it CRIU cannot read the resource limits of a task that belongs to another user
 * ("Can't get rlimit 0: Operation not permitted"), so only containers that run everything as root could be dumped.
 *
 * What prlimit64() would have told is in /proc/PID/limits, which anybody may read. This library, preloaded into the
 * programs of a lab host, answers from there; only for that one question (read a limit of another task, refused with
 * EPERM). It grants nothing: limits are never set, and no other call is changed.
 *
 * CRIU asks through libc's syscall(), so that is the function to stand in for; a stand-in for prlimit64() is never called.
 *
 * Freestanding on purpose: no libc headers and no versioned symbols, so one build loads in every Debian flavour.
 */

#define EPERM 1
#define EINTR 4
#define AT_FDCWD (-100)
#define O_RDONLY_CLOEXEC 02000000
#define LIMIT_COUNT 16 /* RLIM_NLIMITS: /proc/PID/limits lists them in the order of their numbers */

#if defined(__x86_64__)
enum { NR_read = 0, NR_close = 3, NR_openat = 257, NR_prlimit64 = 302 };

static long raw(long n, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall" : "=a"(ret) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}
#elif defined(__aarch64__)
enum { NR_read = 63, NR_close = 57, NR_openat = 56, NR_prlimit64 = 261 };

static long raw(long n, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;

	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
	return x0;
}
#else
#error "the lab's prlimit answer is written for x86_64 and aarch64"
#endif

/* The libc that is loaded anyway provides it: errno is thread local and has no other portable address. */
extern int *__errno_location(void);

struct limit {
	unsigned long long soft;
	unsigned long long hard;
};

/* "unlimited" or decimal digits, after blanks. 0 when there is neither. */
static int parse_value(const char **at, unsigned long long *value)
{
	const char *s = *at;

	while (*s == ' ')
		s++;
	if (*s == 'u') {
		*value = ~0ULL;
		while (*s >= 'a' && *s <= 'z')
			s++;
	} else if (*s >= '0' && *s <= '9') {
		*value = 0;
		while (*s >= '0' && *s <= '9')
			*value = *value * 10 + (unsigned long long)(*s++ - '0');
	} else {
		return 0;
	}
	*at = s;
	return 1;
}

/* Reads line `which` of /proc/PID/limits; 1 when `out` is filled. */
static int limit_from_proc(int pid, unsigned int which, struct limit *out)
{
	char path[40] = "/proc/";
	char digits[12];
	char text[4096];
	const char *line = text;
	const char tail[] = "/limits";
	unsigned int n = 0, at = 6, i;
	long fd, got = 0, size = 0;

	if (pid <= 0 || which >= LIMIT_COUNT)
		return 0;
	for (; pid; pid /= 10)
		digits[n++] = (char)('0' + pid % 10);
	while (n)
		path[at++] = digits[--n];
	for (i = 0; i < sizeof(tail); i++)
		path[at++] = tail[i];

	fd = raw(NR_openat, AT_FDCWD, (long)path, O_RDONLY_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return 0;
	while (size < (long)sizeof(text) - 1) {
		got = raw(NR_read, fd, (long)(text + size), (long)sizeof(text) - 1 - size, 0, 0, 0);
		if (got == -EINTR)
			continue;
		if (got <= 0)
			break;
		size += got;
	}
	raw(NR_close, fd, 0, 0, 0, 0, 0);
	if (got < 0)
		return 0;
	text[size] = '\0';

	/* The first line is a heading. */
	for (i = 0; i <= which; i++) {
		while (*line && *line != '\n')
			line++;
		if (!*line)
			return 0;
		line++;
	}
	/* "%-25s %-20s %-20s %-10s": the name holds blanks, the column is fixed. */
	for (i = 0; i < 26; i++)
		if (!line[i] || line[i] == '\n')
			return 0;
	line += 26;
	return parse_value(&line, &out->soft) && parse_value(&line, &out->hard);
}

long syscall(long n, ...)
{
	__builtin_va_list args;
	long a, b, c, d, e, f, ret;

	/* A caller passes as many as its call needs; like libc's own, this hands on six words whatever they hold. */
	__builtin_va_start(args, n);
	a = __builtin_va_arg(args, long);
	b = __builtin_va_arg(args, long);
	c = __builtin_va_arg(args, long);
	d = __builtin_va_arg(args, long);
	e = __builtin_va_arg(args, long);
	f = __builtin_va_arg(args, long);
	__builtin_va_end(args);

	ret = raw(n, a, b, c, d, e, f);
	if (ret == -EPERM && n == NR_prlimit64 && (int)a != 0 && c == 0 && d != 0) {
		struct limit answer = { 0, 0 };

		if (limit_from_proc((int)a, (unsigned int)b, &answer)) {
			*(struct limit *)d = answer;
			return 0;
		}
	}
	if (ret < 0 && ret > -4096) {
		*__errno_location() = (int)-ret;
		return -1;
	}
	return ret;
}
