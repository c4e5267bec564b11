<?php
// Who answers? For the tests: three kinds of memory that no file holds.
//   token, count   Apache's shared memory (APCu): made up at Apache's start, counted with every request
//   worker         the answering process' own memory: its C environment, which lives as long as the process. PHP's
//                  putenv() is undone at the end of each request, so libc is called directly.
//   session        with ?session: a PHP session, a file in the writable layer
header('Content-Type: application/json');
header('Cache-Control: no-store');

$libc = FFI::cdef('int setenv(const char *name, const char *value, int overwrite);');
$own = getenv('PROOF_TOKEN', true);
if ($own === false) {
    $own = bin2hex(random_bytes(8));
    $libc->setenv('PROOF_TOKEN', $own, 1);
}
$hits = (int) getenv('PROOF_HITS', true) + 1;
$libc->setenv('PROOF_HITS', (string) $hits, 1);

apcu_add('token', bin2hex(random_bytes(8)));
$answer = [
    'count' => apcu_inc('count'),
    'token' => apcu_fetch('token'),
    'worker' => ['pid' => getmypid(), 'parent' => posix_getppid(), 'token' => $own, 'hits' => $hits],
];
if (isset($_GET['session'])) {
    session_start();
    $_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
    $answer['session'] = ['id' => session_id(), 'visits' => $_SESSION['visits']];
}
echo json_encode($answer), "\n";
