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

    install/                    this program as a server's appliance
      networks            pure  interfaces and ranges -> `[network]`
      settings            pure  a new appliance.toml, with comments
      units               pure  what a configuration changes in the units of systemd/
      actions             pure  one small change each, as data
      site                pure  places, program, what is wished for, what was found
      plan                pure  all of it -> the steps of an install or an upgrade
      removal             pure  those of an uninstall and a rollback
      manifest            pure  what earlier installs did
      server_facts              what this server is like
      rivals                    other DHCP servers where one is to lease addresses
      execute                   steps done, and taken back
      debian                    packages without the daemons that they start
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

    doors/                      what testboxes, clients and monitors ask for
      wiring                    which door stands on which port
      seating                   who asks for work: from a request to a seat in the lobby
      boot_wait                 the boot wait, job.cgz, the runner
      boot_wait_ws              the boot wait by WebSocket
      admission                 whether a client is the box in whose name it acts
      neighbours                whose card is at an address, as the kernel knows it
      netlink             pure  how the kernel is asked, and what it answers
      reports                   testboxes' reports, through Quart
      providers                 what machines that run virtual testboxes say of them
      uploads                   uploads by WebDAV
      submits                   jobs over the network, as LKP's `submit` sends them
      metrics                   what Prometheus asks for
      index                     folders of results, as pages
      index_page                what stands on such a page, piece by piece
      monitor                   what happens to jobs, by WebSocket

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

    web/                        HTTP: connections, bodies, files; who gets in, what each may cost
      listen                    the listening sockets and their options
      shares              pure  the limit of open files, in shares, and who has a place
      entrance                  who comes in, and who is told that there is no place
      connections               one connection's trouble ends that connection alone
      sending                   what goes out, to clients that take it in time
      http                      what is said on it: HTTP/1.1 and WebSockets
      asgi                      the one ASGI application
      files                     everything that lies in a file
      open_files                everything that lies in a file
      file_server               HTTP for the ports that only give files: h11 and sendfile
      page_cache                which parts of files are in memory
      ranges              pure  which part of it a request wants
      bodies                    what a request brings: in pieces, gathered, in a form
      berths                    memory for a body before it comes: who waits, and who loses it
      room                      memory for what comes without a length, and who gives way

    scheduler/                  joins store, disk, clock and boxes: decide, keep, act
      clock                     UTC for what is kept, trio's clock for what is waited for
      pulse                     how late the event loop is
      lobby                     idle testboxes: one seat, one cancel scope per testbox
      scheduler                 joins store, journal and lobby: decide, keep, act
      outbox                    what was decided for a box that has not been told
      dispatch                  hands it over, once the disk knows it
      reaper                    ends what is due: leases, deadlines, back-offs
      alarm                     when it wakes up
      archiver                  moves to the archive what memory need not hold
      accounts                  who may submit over the network
      intake                    how documents become jobs
      boot_progress             what boxes fetch: leases, loads, files that are gone
      reports                   what boxes say of their jobs
      hosts_files               the operator's hosts files, read, checked and written
      queries                   what somebody wants to hear of, and what it costs to find out
      watching                  who watches, and the news that all of them are shown

    keep/                       how it survives
      archive                   documents' bodies, and jobs that are over, in one SQLite file
      archive_file              that file: made, opened, copied
      sealed              pure  its rows, and what tells a damaged one
      soundness                 whether it is whole
      packages                  what clients send of their repositories: kept if its md5 is right
      results                   result files: whole or not at all
      state/                    the journal, its snapshots, and the way back from them
        versions          pure  the number of the state's format, and what each one brought
        heads                   which version wrote what lies there, before anything is opened
        frames            pure  the frames of state files: whole, torn or damaged
        records           pure  what stands in them: changes, or a store in pieces
        replay            pure  the way back from files to the store
        gate              pure  whether new work is taken
        space                   the room for the state: set aside, and watched
        disk                    the only writer of state files
        journal                 changes, snapshots, and the way back from them
      repair/                   state files while no server runs; backups
        survey            pure  what state files hold, damaged or not, and what a repair saves
        salvage           pure  a store out of what is left of one
        export            pure  the store as JSON for people, and back
        offline                 state files while no server runs: read, repaired, imported
        rescue                  the archive while no server runs: checked, mended, exported
        backup                  the file of a backup: written, and checked
        restore                 it takes the place of the state, and nothing stops it half-way

    boot/                       what a testbox is told
      script/                   what iPXE and the box's first program are told
        boot_plan         pure  job and box -> what the boot script says
        ipxe              pure  the boot script, and the script that sends an idle box back
        lkp               pure  job -> job.sh, job.yaml
        cgz               pure  files -> cpio newc -> gzip
      daemons/                  what dnsmasq, smbd and the NFS servers are told
        dnsmasq           pure  Config -> dnsmasq.conf, hosts entries, the first scripts
        snippets          pure  what another DHCP server is told that points at us
        own_ipxe                one testbox's own build of iPXE
        smb               pure  Config -> smb.conf, for a CIFS rootfs
        ganesha           pure  Config -> ganesha.conf, for an NFS rootfs
        nfsd              pure  Config -> the same for the kernel's NFS server
        tftp                    the TFTP root: iPXE's builds and the first scripts, laid out
      images/                   root filesystems: found, built, imported, removed
        catalogue               the /srv/os tree: os, arch, version -> kernel, initramfs, modules
        image_build             a rootfs, its kernel and its initramfs from Debian's packages
        apt_sources             where those packages come from
        emulation               whether programs of another architecture run here
        image_import            the same for a rootfs that exists
        image_gc                which images nobody needs, and their end
        sandbox                 runs the programs that make a rootfs; nothing of them outlives us
        special_files           what of a root filesystem has no place on a file server
        chroot_paths            paths in a rootfs, resolved inside it as after a chroot
        rootfs                  what turns a rootfs into one that boots over the network
        snapshot                a folder in the making; it gets its name when it is whole
        pinning                 which files boot a document
      dracut/                   the dracut module that makes an initramfs.lkp
      runner/                   the built-in client that runs the job on the testbox (POSIX sh)

    jobs/                       what work is, and who gets it; all of it is pure
      job                 pure  a job's states, events and legal moves
      box                 pure  a testbox: who it is, what it did last
      changes             pure  what the store holds of a job, and every change there can be
      places              pure  where results lie, and which names there are the server's
      ready               pure  queued jobs, parked boxes, and the pairs between them
      registry            pure  all testboxes, and which of them it is that asks
      store               pure  all jobs and testboxes; changes in one way only
      decisions           pure  what follows from what happens
      cluster             pure  jobs that run together: how far each is, and who waits for whom
      restart             pure  what a start makes of what it finds, whatever the clock says by then
      suspicion           pure  what is held against a testbox, and when it is enough
      misses              pure  what it costs a testbox to lose a job
      operator            pure  what a person decides about testboxes and the lab
      dues                pure  what must be looked at, and when
      packed              pure  large job.cgz, kept for as long as their attempts
      hosts_csv           pure  a list of testboxes, as CSV
      served              pure  the files that a job's script names, and which of them are ours
      documents/                what people write: job documents, and what is wrong with one
        reading           pure  YAML with line numbers and a list of what is wrong
        checks            pure  what the value of a field must be
        document          pure  a job document: fields, defaults, what is refused, in which words
        cluster_spec      pure  one document for several machines -> one for each
        ipxe_words        pure  which words iPXE takes as they stand
      shown/                    what people and programs are shown
        views             pure  jobs and boxes as people and programs are shown them
        overview          pure  the lab in one screen
        measures          pure  what is counted while the server runs
        news              pure  what a change means to people who watch

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
