# web, at the version that hooks/deploy-web has put into the fact web_version.
#
# @param root     where it is
# @param restart  the command that restarts it
# @param health   where it tells its version
class web (
  String[1] $root,
  String[1] $restart,
  String[1] $health,
) {
  $version = $facts['web_version']

  # Before its first deployment there is none, and a run of puppet leaves web alone.
  if $version {
    # Stands for what you have: a package with ensure => $version, an archive, a container's tag.
    file { $root:
      ensure => directory,
    }
    file { "${root}/VERSION":
      ensure  => file,
      content => "${version}\n",
    }

    # Asked of the process rather than by notify: where a run was cut off between the two, or the restart failed, the
    # next one would find the file in place and restart nothing.
    exec { 'restart web':
      command  => $restart,
      unless   => "curl -s --max-time 5 '${health}' | grep -qF '\"version\": \"${version}\"'",
      path     => ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'],
      provider => shell,
      require  => File["${root}/VERSION"],
    }
  }
}
