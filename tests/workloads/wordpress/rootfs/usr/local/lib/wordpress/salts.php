<?php
// Writes the secrets that WordPress signs its cookies with.
$path = '/var/lib/wordpress/salts.php';
$text = "<?php\n";
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $purpose) {
    foreach (['KEY', 'SALT'] as $kind) {
        $text .= "define('{$purpose}_{$kind}', '" . bin2hex(random_bytes(32)) . "');\n";
    }
}
umask(0027);
file_put_contents("$path.new", $text);
chgrp("$path.new", 'www-data');
rename("$path.new", $path);
