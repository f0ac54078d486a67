"""Forward signal propagation layer by layer, in discrete networks (sections III and IV of the
paper), beside the learners it is compared with. In torch, which is imported only by the modules
below.

names        what configurations can name; without torch
properties   what a learner needs of the rest of the network: figure 1; without torch
signal       `Signal`: the activity and the targets of a layer, that go forward together
scores       how close an activity is to the targets of the classes, and the loss made of that
blocks       `Block`: pool, weights, batch norm, leaky ReLU, dropout
networks     `LayerwiseNetwork`, and the shapes of an `mlp`, a `conv` net and `vgg8b`
targets      target generators: target-only, target-input, target-loop
feedback     weights whose backward pass goes through fixed random ones
stages       `Stage`: what learns at once, and the step over all stages
learners/    the learners, one file each, behind `Learner`
augmentation crops and mirror images of training images, and normalisation; without torch
spikes       membranes and spikes of a spiking network on images, recorded
spike_counts how many spikes and synaptic operations that takes
evaluation   the errors of a network and of its exits
prediction   what a network takes images for
"""
