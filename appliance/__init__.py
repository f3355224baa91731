"""One lab server's appliance: from power-on to a finished job.

The map, in the order of a boot.  `pure` modules have no clock, no socket, no file, no await; a test
holds them to it.

    __main__, cli        arguments -> command; cli/wire is the client's end of the control socket
    config               one frozen Config; the only reader of configuration files
    toml_lines    pure   where each key of a TOML text stands
    toml_text     pure   TOML from outside: measured before it is read
    yaml_text     pure   YAML from outside: measured before it is built
    yaml_edit     pure   changes keys of a YAML text; what a person wrote beside them stays
    json_text     pure   JSON from outside: measured as it arrives
    cbor_items    pure   the control socket's CBOR, item by item as it arrives
    printable     pure   what strangers wrote, as a terminal may show it
    trees                folders that strangers filled: walked and removed, however deep
    errors        pure   every way the world can be wrong
    addresses     pure   one form for each address, of either family
    build                what this program was built from
    clock                UTC for what is kept, trio's clock for what is waited for
    log                  what a log line looks like, and what is logged
    floods        pure   which lines are said, and which are only counted
    turns                work that anybody may ask for: a few at once, one of an address
    run                  the nurseries: what starts, in which order it stops
    threads              work in a thread that leaves nothing behind when it fails
    pulse                how late the event loop is
    systemd              ready, alive, stopping; the sockets that systemd holds for us

    boot/                what a testbox is told
      dnsmasq     pure   Config -> dnsmasq.conf, hosts entries, the first scripts
      snippets    pure   what another DHCP server is told that points at us
      own_ipxe           one testbox's own build of iPXE
      images             the /srv/os tree: os, arch, version -> kernel, initramfs, modules
      image_build        a rootfs, its kernel and its initramfs from Debian's packages
      archives           where those packages come from
      emulation          whether programs of another architecture run here
      image_import       the same for a rootfs that exists
      image_gc           which images nobody needs, and their end
      contained          runs the programs that make a rootfs; nothing of them outlives us
      foreign            what of a root filesystem has no place on a file server
      inside             paths in a rootfs, resolved inside it as after a chroot
      rootfs             what turns a rootfs into one that boots over the network
      snapshot           a folder in the making; it gets its name when it is whole
      dracut/            the dracut module that makes an initramfs.lkp
      pinning            which files boot a document
      plan        pure   job and box -> what the boot script says
      ipxe        pure   the boot script, and the script that sends an idle box back
      lkp         pure   job -> job.sh, job.yaml
      cgz         pure   files -> cpio newc -> gzip
      smb         pure   Config -> smb.conf, for a CIFS rootfs
      ganesha     pure   Config -> ganesha.conf, for an NFS rootfs
      exports     pure   Config -> the same for the kernel's NFS server
      runner/            the built-in client that runs the job on the testbox (POSIX sh)

    jobs/                what work is, and who gets it
      reading     pure   YAML with line numbers and a list of what is wrong
      checks      pure   what the value of a field must be
      document    pure   a job document: fields, defaults, what is refused and with which words
      job         pure   a job's states, events and legal moves
      box         pure   a testbox: who it is, what it did last
      changes     pure   what the store holds of a job, and every change there can be
      places      pure   where results lie, and which names there are the server's
      ready       pure   queued jobs, parked boxes, and the pairs between them
      registry    pure   all testboxes, and which of them it is that asks
      store       pure   all jobs and testboxes; changes in one way only
      decisions   pure   what follows from what happens
      nodes       pure   one document for several machines -> one for each
      cluster     pure   jobs that run together: how far each is, and who waits for whom
      restart     pure   what a start makes of what it finds, whatever the clock says by then
      suspicion   pure   what is held against a testbox, and when it is enough
      misses      pure   what it costs a testbox to lose a job
      operator    pure   what a person decides about testboxes and the lab
      lobby              idle testboxes: one seat, one cancel scope per testbox
      scheduler          joins store, journal and lobby: decide, keep, act
      outbox             what was decided for a box that has not been told
      dispatch           hands it over, once the disk knows it
      dues        pure   what must be looked at, and when
      reaper             ends what is due: leases, deadlines, back-offs
      alarm              when it wakes up
      filing             moves to the archive what memory need not hold
      accounts           who may submit over the network
      intake             how documents become jobs
      packed      pure   large job.cgz, kept for as long as their attempts
      fetches            what boxes fetch: leases, loads, files that are gone
      reports            what boxes say of their jobs
      hosts              the operator's hosts files, read, checked and written
      inventory   pure   a list of testboxes, as CSV
      views       pure   jobs and boxes as people and programs are shown them
      overview    pure   the lab in one screen
      measures    pure   what is counted while the server runs
      news        pure   what a change means to people who watch
      queries            what somebody wants to hear of, and what it costs to find out
      watching           who watches, and the news that all of them are shown

    doors/               how the world comes in
      listen             the listening sockets and their options
      ports              which door stands on which port
      shares      pure   the limit of open files, in shares, and who has a place
      entrance           who comes in, and who is told that there is no place
      connections        one connection's trouble ends that connection alone
      sending            what goes out, to clients that take it in time
      http               what is said on it: HTTP/1.1 and WebSockets
      asgi               the one ASGI application
      asking             who asks for work: from a request to a seat in the lobby
      boxes              the boot wait, job.cgz, the runner
      sockets            the boot wait by WebSocket
      admission          whether a client is the box in whose name it acts
      neighbours         whose card is at an address, as the kernel knows it
      netlink     pure   how the kernel is asked, and what it answers
      files, opening     everything that lies in a file
      bulk               HTTP for the ports that only give files: h11 and sendfile
      warm               which parts of files are in memory
      ranges      pure   which part of it a request wants
      reports            testboxes' reports, through Quart
      providers          what machines that run virtual testboxes say of them
      results            uploads by WebDAV
      submits            jobs over the network, as LKP's `submit` sends them
      bodies             what a request brings: in pieces, gathered, in a form
      berths             memory for a body before it comes: who waits, and who loses it
      room               memory for what comes without a length, and who gives way
      metrics            what Prometheus asks for
      index              folders of results, as pages
      pages              what stands on such a page, piece by piece
      monitor            what happens to jobs, by WebSocket
      control            the command line's unix socket
      people             the verbs behind it
      arguments   pure   what they take
      operators          those about the lab as a whole
      backups            the one that sends the state as it is at one moment
      testboxes          those about testboxes
      retention          those about results that have grown old

    keep/                how it survives
      versions    pure   the number of the state's format, and what each one brought
      heads              which version wrote what lies there, before anything is opened
      frames      pure   the frames of state files: whole, torn or damaged
      records     pure   what stands in them: changes, or a store in pieces
      replay      pure   the way back from files to the store
      survey      pure   what state files hold, damaged or not, and what a repair saves
      salvage     pure   a store out of what is left of one
      export      pure   the store as JSON for people, and back
      gate        pure   whether new work is taken
      owner              root at work in somebody else's folder: as that somebody
      plain              plain files: read for what they are, written whole or not at all
      space              the room for the state: set aside, and watched
      disk               the only writer of state files
      offline            state files while no server runs: read, repaired, imported
      journal            changes, snapshots, and the way back from them
      archive            documents' bodies, and jobs that are over, in one SQLite file
      archive_file       that file: made, opened, copied
      sealed      pure   its rows, and what tells a damaged one
      soundness          whether it is whole
      rescue             the archive while no server runs: checked, mended, exported
      backup             the file of a backup: written, and checked
      restore            it takes the place of the state, and nothing stops it half-way
      packages           what clients send of their repositories: kept if its md5 is right
      results            result files: whole or not at all

    setup/               the demo lab: packages, namespace, QEMU; and an installation:
      networks    pure   interfaces and ranges -> `[network]`
      settings    pure   a new appliance.toml, with comments
      units       pure   what a configuration changes in the units of systemd/
      actions     pure   one small change each, as data
      site        pure   places, program, what is wished for, what was found
      plan        pure   all of it -> the steps of an install or an upgrade
      removal     pure   those of an uninstall and a rollback
      records     pure   what earlier installs did
      server             what this server is like
      rivals             other DHCP servers where one is to lease addresses
      doing              steps done, and taken back
      debian             packages without the daemons that they start
      programs           other programs, run to their end
      documents          the manual and the shells' completions
      install            install, roll back, uninstall
      binary             `make binary`
      debian_package     `make deb`
      doctor/            looks a lab over; each finding with what it means and what mends it
      doctor/look        all its checks, in the order of a boot
      doctor/worlds      what several of them want to know
      doctor/network     gathers: the server, the wire, ports, doors, parked boxes
      doctor/host        gathers: limits, disks, the daemons' own checkers, images
      doctor/asking      asks the network as a box would: DHCP, TFTP
      doctor/dhcp      pure   its packets
      doctor/findings  pure   ok, warning, error, not looked at
      doctor/wire      pure   who leases addresses, and what a box would boot
      doctor/ports     pure   who owns the ports
      doctor/doors     pure   whether the lab reaches them
      doctor/firewall  pure   what would drop what comes in
      doctor/machine   pure   limits, leases, disks
      doctor/files     pure   iPXE, configurations, images
      doctor/providers  pure   what says that machines of virtual boxes are who they are
      doctor/boxes     pure   the iPXE of parked boxes, and what is known about it
"""

__version__ = "0.1.0"
