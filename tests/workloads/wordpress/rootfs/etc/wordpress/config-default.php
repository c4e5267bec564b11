<?php
// The variables of the article's image, as the settings that Debian's WordPress reads. They are read at every request,
// from the environment of the process that answers.
define('DB_HOST', getenv('WORDPRESS_DB_HOST', true));
define('DB_USER', getenv('WORDPRESS_DB_USER', true));
define('DB_PASSWORD', getenv('WORDPRESS_DB_PASSWORD', true));
define('DB_NAME', getenv('WORDPRESS_DB_NAME', true));
$table_prefix = getenv('WORDPRESS_TABLE_PREFIX', true) ?: 'wp_';

// The site moves from host to host: it has the name under which it is asked.
define('WP_HOME', 'http://' . ($_SERVER['HTTP_HOST'] ?? 'localhost'));
define('WP_SITEURL', WP_HOME);

// Made at the first start, in the writable layer: whoever was logged in before a move still is afterwards.
require '/var/lib/wordpress/salts.php';

// Only what is asked for happens: no requests of its own to itself or to the world.
define('DISABLE_WP_CRON', true);
define('WP_HTTP_BLOCK_EXTERNAL', true);
define('AUTOMATIC_UPDATER_DISABLED', true);
