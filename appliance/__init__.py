"""One lab server's appliance: takes testboxes from power-on to a finished job.

The map: rooms from top to bottom; no module imports one from a room above.  `pure` modules have no
clock, no socket, no file, no await.  Tests check both.

    cli/                        the command line: one file for each group of commands
      manual                    the manual page and shell completions, made from the commands
      account                   `appliance account`
      backup                    `backup` and `restore`
      connection                connects to the server that a command line names
      control_proxy             joins the control socket to stdin and stdout, for ssh
      doctor                    `doctor`
      durations                 parses times as a person types them
      hosts                     `hosts` and `host`
      images                    `image`
      jobs                      `jobs`, `show`, `cancel`, `renew`
      lab                       `status`, `drain`, `resume`, `log-level`
      render                    configurations of daemons: `dnsmasq-config`, `tftpboot` and others
      results                   `results`
      serve                     `serve`
      setup                     `install` and `uninstall`
      show                      prints answers: columns for people, JSON for programs
      state                     `state`
      state_report              reports on the state on the disk, for people and programs
      submit                    `submit` and `wait`
      watch                     `watch`

    run                         the process: starts everything, and stops it in order

    install/                    installs, upgrades and removes this program on a server
      networks            pure  interfaces and ranges -> `[network]`
      settings            pure  a new appliance.toml, with comments
      units               pure  what a configuration changes in the units of systemd/
      actions             pure  one small change each, as data
      site                pure  paths, the program, what is wished for, what was found
      state_copies        pure  the copies that are kept beside the state
      plan                pure  site's facts -> the steps of an install or an upgrade
      removal             pure  the steps of an uninstall and a rollback
      manifest            pure  what earlier installs did
      server_facts              gathers facts about this server
      rivals                    looks for other DHCP servers before an install
      execute                   carries out steps, and undoes them
      debian                    installs packages, keeps their daemons from starting
      install                   install, upgrade, roll back, uninstall

    doctor/                     checks a lab; says what each finding means and how to fix it
      look                      runs all checks, in the order of a boot
      facts                     facts that several checks need
      network                   gathers: the server, DHCP, ports, doors, parked boxes
      host                      gathers: limits, disks, the daemons' own checkers, images
      probe                     asks the network as a box would: DHCP, TFTP
      dhcp                pure  packets of DHCP
      findings            pure  ok, warning, error, skipped
      wire                pure  judges who leases addresses, and what a box would boot
      ports               pure  judges who has the ports
      reach               pure  judges whether each door answers at the lab's address
      firewall            pure  judges whether firewalls drop incoming packets
      machine             pure  judges limits, leases, disks, the clock
      boot_files          pure  judges iPXE, configurations, images
      provider_cards      pure  judges how machines of virtual boxes are identified
      boxes               pure  judges the iPXE of parked boxes

    doors/                      answers what testboxes, clients and monitors ask for
      wiring                    which door stands on which port
      seating                   gives a box that asks for work a seat in the lobby
      boot_wait                 the boot wait, job.cgz, the runner
      boot_wait_ws              the boot wait by WebSocket
      admission                 checks that a client is the box in whose name it acts
      neighbours                asks the kernel which card is at an address
      netlink             pure  writes these questions and reads the answers
      reports                   testboxes' reports, through Quart
      providers                 registers virtual testboxes for the machines that run them
      uploads                   uploads by WebDAV
      submits                   jobs over the network, as LKP's `submit` sends them
      metrics                   metrics for Prometheus
      index                     folders of results, as pages
      index_page                writes such a page, piece by piece
      monitor                   sends clients what happens to jobs, by WebSocket

    control/                    the command line's unix socket: both ends, and the verbs
      server                    the server's end of the socket
      verbs                     runs the verbs
      lab_verbs                 verbs about the lab as a whole
      host_verbs                verbs about testboxes
      retention                 keeps or removes results of jobs
      backup_verbs              the verb that sends the state as of one moment
      client                    the client's end of the socket, blocking
      job_verbs                 verbs about jobs and their results
      result_verbs              verbs that keep a job's results or remove old ones
      screen                    the lab in one screen
      verb                      defines verbs, a class each; checks requests

    web/                        HTTP: connections, bodies, files; admits and limits clients
      listen                    the listening sockets and their options
      shares              pure  divides the limit of open files among clients
      entrance                  admits connections, or refuses them when there is no place
      connections               keeps an error in one connection from ending others
      sending                   sends data, and cuts off clients that do not take it in time
      request_heads             heads of requests: each waits for its turn, none is too long
      http                      HTTP/1.1 and WebSockets on a connection
      asgi                      the one ASGI application: sends requests to the doors
      files                     answers requests for files
      open_files                opens the file that a path names, and reads it
      file_server               HTTP server for the ports that only serve files: h11 and sendfile
      page_cache                which parts of files are in memory
      ranges              pure  which part of a file a request wants
      bodies                    reads bodies of requests: in pieces, as a whole, in a form
      berths                    reserves memory for a body of known length before it arrives
      room                      limits memory for messages of unknown length

    scheduler/                  joins store, disk, clock and boxes: changes are decided, kept, done
      clock                     UTC for stored times, trio's clock for waiting
      pulse                     measures how late the event loop is
      lobby                     idle testboxes: one seat, one cancel scope per testbox
      scheduler                 joins store, journal and lobby: decide, keep, act
      outbox                    jobs decided for boxes that have not been told yet
      dispatch                  hands these jobs over, once the decision is on disk
      reaper                    ends what is due: leases, deadlines, back-offs
      alarm                     when the reaper wakes up
      archiver                  moves document bodies and finished jobs to the archive
      accounts                  who may submit over the network
      intake                    how documents become jobs
      boot_progress             what boxes fetch: leases, loads, missing files
      reports                   what boxes report about their jobs
      hosts_files               the operator's hosts files, read, checked and written
      queries                   what a watcher wants to hear of, and what that costs
      watching                  who watches, and how all watchers get the news

    keep/                       how jobs and results survive
      archive                   document bodies and finished jobs, in one SQLite file
      archive_file              the archive's file: made, opened, copied
      sealed              pure  the archive's rows, with checksums
      soundness                 whether the archive is whole
      packages                  packages that clients upload: kept if the md5 is right
      results                   result files: written completely or not at all
      state/                    the journal, its snapshots, and how they are loaded
        versions          pure  the version of the state's format, and what each version added
        heads                   which version wrote the state files, before any is opened
        frames            pure  the frames of state files: whole, torn or damaged
        records           pure  the contents of frames: changes, or a store in pieces
        replay            pure  loads the store from state files
        gate              pure  whether new work is taken
        space                   the room for the state: a reserve, and a watch
        disk                    the only writer of state files
        journal                 writes changes and snapshots, and restores from them
      repair/                   state files while no server runs; backups
        survey            pure  reads state files, damaged or not; what a repair can save
        salvage           pure  builds a store from what is left of one
        export            pure  the store as JSON for people, and back
        offline                 state files while no server runs: read, repaired, imported
        rescue                  the archive while no server runs: checked, mended, exported
        backup                  the file of a backup: written, and checked
        restore                 it takes the place of the state, and nothing stops it half-way

    boot/                       everything that a testbox boots, and the daemons' configurations
      script/                   the boot script for iPXE, and job.cgz for the client
        boot_plan         pure  job and box -> the contents of the boot script
        ipxe              pure  the boot script, and the script that makes an idle box ask again
        lkp               pure  job -> job.sh, job.yaml
        cgz               pure  files -> cpio newc -> gzip
      daemons/                  configurations of dnsmasq, smbd and NFS servers; the TFTP root
        dnsmasq           pure  Config -> dnsmasq.conf, hosts entries, the first scripts
        snippets          pure  configuration snippets for another DHCP server
        own_ipxe                one testbox's own build of iPXE
        smb               pure  Config -> smb.conf, for a CIFS rootfs
        ganesha           pure  Config -> ganesha.conf, for an NFS rootfs
        nfsd              pure  Config -> exports for the kernel's NFS server
        tftp                    lays out the TFTP root: iPXE's builds and the first scripts
      images/                   root filesystems: lists, builds, imports and removes them
        catalogue               the /srv/os tree: os, arch, version -> kernel, initramfs, modules
        image_build             a rootfs, its kernel and its initramfs from Debian's packages
        apt_sources             the Debian archives of these packages
        emulation               whether programs of another architecture run here
        image_import            makes an existing rootfs boot over the network
        image_gc                removes unused images
        sandbox                 runs the programs that make a rootfs; no process or mount stays
        special_files           removes special files, which must not be on a file server
        chroot_paths            paths in a rootfs, resolved inside it as after a chroot
        rootfs                  makes a rootfs boot over the network: modules, initramfs
        snapshot                builds an image in a hidden folder, then renames it
        pinning                 which files boot a document
      dracut/                   the dracut module that makes an initramfs.lkp
      runner/                   the built-in client that runs the job on the testbox (POSIX sh)

    jobs/                       jobs and testboxes: states, and which box gets which job; all pure
      job                 pure  a job's states, events and legal moves
      box                 pure  a testbox: its identity, its settings, its last boots
      changes             pure  the store's record of a job, and every kind of change
      places              pure  the folders of results, and the names in them that are reserved
      ready               pure  matches queued jobs with parked boxes
      registry            pure  all testboxes, and how an asking box is identified
      store               pure  all jobs and testboxes; changes in one way only
      decisions           pure  events -> the changes that follow
      cluster             pure  jobs that run together: the state of each, and the gates between
      restart             pure  deadlines after a restart, even if the clock was moved
      suspicion           pure  when a testbox is quarantined
      misses              pure  the back-off of a testbox that loses a job
      operator            pure  an operator's decisions about testboxes, results and the lab
      dues                pure  a timer queue: which jobs and boxes to check, and when
      packed              pure  a cache of large job.cgz archives of attempts under way
      hosts_csv           pure  a list of testboxes, as CSV
      served              pure  the files that a job's script names, and which of them we serve
      documents/                job documents, read and checked
        reading           pure  YAML with line numbers and a list of mistakes
        checks            pure  checks of field values
        document          pure  a job document: its fields, defaults and error messages
        cluster_spec      pure  one document for several machines -> one for each
        ipxe_words        pure  which words iPXE takes literally
      shown/                    views of jobs and testboxes for people and programs
        views             pure  jobs and boxes as plain maps
        overview          pure  the lab in one screen
        measures          pure  counters and histograms of a running server
        news              pure  changes -> messages of the monitor's socket

    config                      one frozen Config; the only reader of configuration files

    __main__                    `python -m appliance`
    toml_lines            pure  the line of each key of a TOML text
    toml_text             pure  TOML from outside: limits are checked before parsing
    yaml_text             pure  YAML from outside: limits are checked before anything is built
    yaml_edit             pure  changes keys of a YAML text; keeps comments and order
    json_text             pure  JSON from outside: limits are checked as bytes arrive
    cbor_items            pure  decodes the control socket's CBOR as bytes arrive
    printable             pure  makes text of strangers safe for a terminal
    errors                pure  the expected errors
    addresses             pure  one form for each address, of either family
    build                       what this program was built from
    log                         writes the log: key=value, or fields to the journal
    floods                pure  limits repeated log lines, and counts the rest
    turns                       shares work fairly: a few at once, one of each address
    threads                     runs work in a thread, without a reference cycle when it fails
    systemd                     ready, alive, stopping; the sockets that systemd holds for us
    programs                    runs other programs to their end
    names                 pure  the names of the program, its user and its group
    fs/                         safe work with files and with folders that other users fill
      trees                     walks and removes folders that strangers filled, however deep
      owner                     lets root work in another user's folder with that user's rights
      plain_files               opens and reads plain files only
      atomic                    replaces a file, link or folder atomically and durably

Beside the package: lab/ is the lab of the demo and the tests (namespace, QEMU); release/ builds
the one file and the Debian package.
"""

__version__ = "0.1.0"
