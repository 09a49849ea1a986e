"""Plates over the jobs of a batch system, by dask-jobqueue, all connections by TLS.

    python batch_cluster.py --jobs 16 --cores 8 --memory 32GB --walltime 04:00:00 --queue gpu --extra=--gres=gpu:1 -- \
        --plate BR00117010 --plate BR00117011 --images /data/images --output /data/out

What follows `--` is `jumpgpu extract`'s. Run it where jobs can be submitted and reach it: on a login node, or in a small
job of its own. Certificates come from Dask's configuration (docs/clusters.md); without them it does not start.
"""

import argparse
import sys

import dask_jobqueue
from dask_jobqueue.local import LocalCluster
from distributed.security import Security

from jumpgpu.extract import main as extract

KINDS = {
    "slurm": dask_jobqueue.SLURMCluster,
    "pbs": dask_jobqueue.PBSCluster,
    "sge": dask_jobqueue.SGECluster,
    "lsf": dask_jobqueue.LSFCluster,
    "local": LocalCluster,  # jobs are processes of this machine: to try it out
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=KINDS, default="slurm", help="the batch system (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=4, help="workers, one a job (default: %(default)s)")
    parser.add_argument("--cores", type=int, default=4, help="processors of a job (default: %(default)s)")
    parser.add_argument("--memory", default="16GB", help="memory of a job (default: %(default)s)")
    parser.add_argument("--walltime", default="04:00:00", help="of a job; one that ends is replaced (default: %(default)s)")
    parser.add_argument("--queue", help="partition")
    parser.add_argument("--account")
    parser.add_argument("--interface", help="network interface between jobs and this machine: ib0")
    parser.add_argument("--extra", action="append", default=[], help="a directive for each job: --extra=--gres=gpu:1")
    parser.add_argument("extract", nargs="+", metavar="-- OPTIONS", help="of jumpgpu extract")
    options = parser.parse_args()
    security = Security(require_encryption=True)
    batch = {"queue": options.queue, "account": options.account, "walltime": options.walltime}
    with KINDS[options.kind](
        cores=options.cores,
        processes=1,
        memory=options.memory,
        interface=options.interface,
        protocol="tls://",
        security=security,
        scheduler_options={"dashboard": False},
        nanny=False,
        worker_extra_args=["--no-dashboard", "--memory-limit", "0"],
        job_extra_directives=options.extra,
        **({} if options.kind == "local" else batch),
    ) as cluster:
        cluster.adapt(minimum_jobs=options.jobs, maximum_jobs=options.jobs)  # so that a job that ends is replaced
        return extract([*options.extract, "--scheduler", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(main())
