# What a point of a sweep asks Slurm for (`--backend slurm --cluster configs/clusters/slurm.sh`), and commands to run before it.
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
