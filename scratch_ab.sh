# scratch_ab.sh PTE ROUNDS SRC_A SRC_B TIMES
cd /work/wt/front; source /work/main/.venv/bin/activate
export NULL_STEP_MS=2 WGPU_BACKEND_TYPE=Null
for i in $(seq $5); do for S in $3 $4; do
export PYTHONPATH=/tmp/front_site:$S:$PWD:$PWD/examples
echo "== $S"; timeout 200 python -m bench.bench_http $1 --engine dawn --streams --rounds $2 --prompt ${6:-64} --round-steps 24 --steps 24 2>&1 | grep -A1 "http - \|process -\|http:"
done; done
