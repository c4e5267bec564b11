<?php
// Waits for the database and sets the site up in it, unless it holds one already.
mysqli_report(MYSQLI_REPORT_OFF);
$host = getenv('WORDPRESS_DB_HOST');
$port = 3306;
if (preg_match('/^(.*):(\d+)$/', $host, $parts)) {
    [$host, $port] = [$parts[1], (int) $parts[2]];
}
$limit = time() + 60;
while (true) {
    $link = mysqli_init();
    $link->options(MYSQLI_OPT_CONNECT_TIMEOUT, 5);
    $there = @$link->real_connect(
        $host,
        getenv('WORDPRESS_DB_USER'),
        getenv('WORDPRESS_DB_PASSWORD'),
        getenv('WORDPRESS_DB_NAME'),
        $port
    );
    if ($there) {
        $link->close();
        break;
    }
    if (time() > $limit) {
        fwrite(STDERR, "no database after 60 s: " . mysqli_connect_error() . "\n");
        exit(1);
    }
    sleep(1);
}

$_SERVER['HTTP_HOST'] = 'localhost';
$_SERVER['REQUEST_URI'] = '/';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
define('WP_INSTALLING', true);

// In place of WordPress' own one, which sends a mail.
function wp_new_blog_notification(): void
{
}

require '/usr/share/wordpress/wp-load.php';
require ABSPATH . 'wp-admin/includes/upgrade.php';
if (is_blog_installed()) {
    echo "the database has a site\n";
    exit(0);
}
$password = getenv('WORDPRESS_ADMIN_PASSWORD') ?: bin2hex(random_bytes(12));
wp_install('livemigrate', getenv('WORDPRESS_ADMIN_USER') ?: 'admin', 'admin@example.com', true, '', $password, 'en_US');
echo "site installed\n";
if (!getenv('WORDPRESS_ADMIN_PASSWORD')) {
    echo "password of admin: $password\n";
}
